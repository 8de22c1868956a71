//! Tests of the example `lenet`.

use super::*;
use convolve_examples::fetched::fetched;

/// The fingerprint of the weights, and what part of the digits that were held out they read right.
fn train(digits: &Digits, seed: u64, threads: usize, epochs: usize) -> (u64, f64) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let ((train, test), shape) = (digits.split(), Shape::lenet5(BATCH));
    let mut network = network(&shape, Par::Pool(&pool), threads).unwrap();
    let arguments = Arguments { out: None, seed, data: Data::Uci, epochs, threads, load: None };
    let (parameters, curve) = learn(&mut network, &shape, [&train, &test], &arguments).unwrap();
    (file::fingerprint(&parameters), curve.last().unwrap().test)
}

#[test]
fn it_learns_to_read() {
    let (_, right) = train(&Digits::embedded(), 1, 1, 20);
    assert!(right >= 0.98, "{right}");
}

#[test]
fn it_learns_to_read_mnist() {
    if !fetched(MNIST5K, "examples/fetch mnist5k") {
        return;
    }
    let (_, right) = train(&Digits::mnist5k(Path::new(MNIST5K)).unwrap(), 1, 1, 20);
    assert!(right >= 0.975, "{right}");
}

#[test]
fn there_are_as_many_of_each_digit_of_mnist_and_a_fifth_is_held_out() {
    if !fetched(MNIST5K, "examples/fetch mnist5k") {
        return;
    }
    let digits = Digits::mnist5k(Path::new(MNIST5K)).unwrap();
    let (train, test) = digits.split();
    for (part, each) in [(&digits, 500), (&train, 400), (&test, 100)] {
        let count = |class| part.labels.iter().filter(|&&label| label == class).count();
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(count), [each; CLASSES]);
        assert_eq!(part.pixels.len(), part.labels.len() * digits::SIZE);
        let (least, most) = part.pixels.iter().fold((1.0f32, 0.0f32), |(a, b), &x| (a.min(x), b.max(x)));
        assert_eq!((least, most), (0.0, 1.0));
    }
}

#[test]
fn a_file_of_other_digits_or_none_gets_a_sentence() {
    let sentence = |path: &Path| Digits::mnist5k(path).err().unwrap().to_string();
    assert!(sentence(Path::new("no/such/file")).contains("examples/fetch mnist5k"));
    let path = std::env::temp_dir().join(format!("lenet-{}.bin", std::process::id()));
    std::fs::write(&path, [0; 785]).unwrap();
    let sentence = sentence(&path);
    std::fs::remove_file(&path).unwrap();
    assert!(sentence.ends_with("not 5,000 digits of 28 x 28 pixels"), "{sentence}");
}

/// Pixels of 8 x 8 are the middles of squares of 3 x 3; beyond them ink fades, and the outermost pixel has none.
#[test]
fn digits_are_enlarged_about_their_middle() {
    let (digits, small) = (Digits::embedded(), include_bytes!("../data/digits.bin"));
    assert_eq!(digits.labels.len(), 1797);
    for (large, small) in digits.pixels.chunks_exact(digits::SIZE).zip(small.chunks_exact(65)) {
        for (i, &ink) in small[..64].iter().enumerate() {
            let at = (3 * (i / 8) + 3) * digits::SIDE + 3 * (i % 8) + 3;
            assert!((large[at] - f32::from(ink) / 16.0).abs() < 1e-5, "pixel {i}");
        }
        let rim =
            |i: usize| [i / digits::SIDE, i % digits::SIDE].iter().any(|&i| i == 0 || i == digits::SIDE - 1);
        assert!((0..digits::SIZE).all(|i| !rim(i) || large[i] == 0.0));
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_for_any_number_of_threads() {
    let digits = Digits::embedded();
    let [(one, _), (again, _), (three, _), (other, _)] =
        [(1, 1), (1, 1), (1, 3), (2, 1)].map(|(seed, threads)| train(&digits, seed, threads, 1));
    assert!(one == again && one == three && one != other);
}

#[test]
fn weights_survive_the_file() {
    let mut random = digits::Random::new(3);
    let shape = Shape::lenet5(BATCH);
    let parameters = Parameters::random(&shape, || random.uniform()).unwrap();
    let path = std::env::temp_dir().join(format!("lenet-{}.safetensors", std::process::id()));
    file::save(&parameters, "uci", &path).unwrap();
    let loaded = file::load(&path, &shape, "uci").unwrap();
    let other = file::load(&path, &shape, "mnist5k").unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(file::fingerprint(&parameters), file::fingerprint(&loaded));
    assert!(other.ends_with("holds weights for the digits `uci`, not `mnist5k`: give --data uci"), "{other}");
}

#[test]
fn a_file_of_no_weights_gets_a_sentence() {
    let path = std::env::temp_dir().join(format!("lenet-{}.txt", std::process::id()));
    std::fs::write(&path, "text").unwrap();
    let sentence = file::load(&path, &Shape::lenet5(BATCH), "uci").unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert!(sentence.ends_with(".txt is no safetensors file: header too small"), "{sentence}");
}

#[test]
fn numbers_out_of_range_are_refused() {
    let parse = |option: &str, value: &str| Arguments::try_parse_from(["lenet", option, value]);
    for (option, most) in [("--threads", 256), ("--epochs", 10_000)] {
        for value in ["0", &(most + 1).to_string(), "18446744073709551615", "-1"] {
            assert!(parse(option, value).is_err(), "{option} {value}");
        }
        assert!(parse(option, "1").is_ok() && parse(option, &most.to_string()).is_ok(), "{option}");
    }
}

#[test]
fn data_have_the_names_of_the_command_line() {
    for data in Data::value_variants() {
        assert_eq!(data.to_possible_value().unwrap().get_name(), data.name());
    }
}
