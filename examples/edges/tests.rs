//! Tests of the example `edges`.

use super::*;
use convolve::definition;
use files::EMBEDDED;
use std::fs;
use std::io::Cursor;

/// A folder of this test's own, empty.
fn folder(test: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("convolve-edges-{}-{test}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The sentence for a file with these contents.
fn refusal(test: &str, contents: &[u8]) -> String {
    let folder = folder(test);
    let file = folder.join("file");
    fs::write(&file, contents).unwrap();
    let sentence = find_edges(Some(&file), &folder.join("out")).unwrap_err().to_string();
    assert!(!folder.join("out").exists(), "nothing is made for a file that is refused");
    fs::remove_dir_all(folder).unwrap();
    assert!(!sentence.contains('\n'), "{sentence}");
    sentence
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    GrayImage::new(width, height).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn the_toy_picture_of_the_lecture_has_its_published_answer() {
    let text = lecture().unwrap();
    let rows = |row: &str| text.lines().filter(|line| line.ends_with(row)).count();
    assert_eq!(rows("   0  30  30   0"), 4, "{text}");
    assert_eq!(rows("   0 -30 -30   0"), 4, "{text}");
}

#[test]
fn a_flat_picture_has_edges_only_at_its_border() {
    let size = [5, 7];
    for level in [0, 1, 200] {
        let grey = apply(&[level; 35], size, Padding::Same, &GREY_FILTERS).unwrap();
        let colour = apply(&[level; 105], size, Padding::Same, &COLOUR_FILTERS).unwrap();
        for response in grey.responses.iter().chain(&colour.responses) {
            for (i, &value) in response.values.iter().enumerate() {
                let (y, x) = (i / 7, i % 7);
                let inside = (1..4).contains(&y) && (1..6).contains(&x);
                assert!(!inside || value == 0.0, "{}: {value} at {y}, {x}", response.name);
            }
            assert_eq!(response.values.iter().any(|&value| value != 0.0), level != 0, "{}", response.name);
        }
    }
}

/// Bytes times small integers: every order of summation is exact, so the answers must be equal.
#[test]
fn responses_to_the_photograph_are_those_of_the_definition() {
    let photo = files::embedded().unwrap();
    let size = [photo.height() as usize, photo.width() as usize];
    let pixels = photo.to_rgb8();
    let answer = apply(&pixels, size, Padding::Same, &COLOUR_FILTERS).unwrap();
    let src: Vec<i64> = pixels.iter().map(|&x| x.into()).collect();
    let mut weights = [[0; 27]; 2];
    for tap in 0..9 {
        let weight = [1, 0, -1][tap % 3];
        weights[0][tap] = weight;
        (0..3).for_each(|channel| weights[1][9 * channel + tap] = weight);
    }
    let expected = definition::forward(&answer.conv.geometry().unwrap(), &src, weights.as_flattened());
    for (n, response) in answer.responses.iter().enumerate() {
        let expected: Vec<f32> = expected.iter().skip(n).step_by(2).map(|&x| x as f32).collect();
        assert!(response.values == expected, "{}", response.name);
    }
}

#[test]
fn a_step_is_as_bright_under_every_filter_that_looks_its_way() {
    // 40 grey levels from left to right, 4 x 6 pixels; 80 = 2 x 40.
    let pixels = [[100, 100, 100, 60, 60, 60]; 4].concat();
    let answer = apply(&pixels, [4, 6], Padding::Same, &GREY_FILTERS).unwrap();
    for response in answer.responses {
        let bright = if response.name.contains("vertical") { 80 } else { 0 };
        let picture = response.picture([4, 6]);
        assert_eq!(
            [1, 2, 3, 4].map(|x| picture.get_pixel(x, 1).0[0]),
            [0, bright, bright, 0],
            "{}",
            response.name
        );
    }
}

#[test]
fn the_whole_run_writes_every_picture_in_its_size() {
    let folder = folder("whole");
    let report = find_edges(None, &folder.join("deep/er")).unwrap();
    assert!(report.contains(&format!("Brightness is {BRIGHTNESS} x ")), "{report}");
    assert!(report.contains("320 x 320 pixels") && report.contains("<- chosen"), "{report}");
    let mut names: Vec<_> = fs::read_dir(folder.join("deep/er"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable_by_key(|name| name.trim_end_matches(".png").to_string());
    let expected = [
        "contact-sheet",
        "horizontal",
        "magnitude",
        "scharr-horizontal",
        "scharr-magnitude",
        "scharr-vertical",
        "sobel-horizontal",
        "sobel-magnitude",
        "sobel-vertical",
        "vertical",
        "vertical-red-only",
        "vertical-rgb",
    ];
    assert_eq!(names, expected.map(|name| format!("{name}.png")));
    for name in &names {
        let picture = image::open(folder.join("deep/er").join(name)).unwrap();
        assert_eq!((picture.width(), picture.height()) == (320, 320), name != "contact-sheet.png", "{name}");
        let brightest = picture.to_luma8().pixels().map(|pixel| pixel.0[0]).max();
        assert!(brightest > Some(100), "{name} is dark");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn pictures_of_any_shape_from_three_pixels_on_are_taken() {
    let folder = folder("shapes");
    for (width, height) in [(3, 3), (3, 700), (1000, 4), (17, 5)] {
        let file = folder.join("picture.png");
        fs::write(&file, png(width, height)).unwrap();
        let report = find_edges(Some(&file), &folder).unwrap();
        assert!(report.contains(&format!("{width} x {height} pixels")), "{report}");
        let written = image::open(folder.join("scharr-magnitude.png")).unwrap();
        assert_eq!((written.width(), written.height()), (width, height));
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn pictures_too_small_for_a_filter_get_a_sentence() {
    for (width, height) in [(1, 1), (2, 2), (1, 50), (50, 1), (2, 3)] {
        let sentence = refusal(&format!("small-{width}-{height}"), &png(width, height));
        let end = format!("file has {width} x {height} pixels; a 3x3 filter needs at least 3 x 3");
        assert!(sentence.ends_with(&end), "{sentence}");
    }
}

#[test]
fn pictures_too_large_for_the_memory_get_a_sentence() {
    assert!(files::check_size("x", 8000, 5000).is_ok());
    let sentence = files::check_size("x", 8001, 5000).unwrap_err().to_string();
    assert_eq!(sentence, "x has 8001 x 5000 pixels; at most 40 million are taken");
    assert!(files::check_size("x", u32::MAX, u32::MAX).is_err());
}

#[test]
fn files_that_are_no_pictures_get_a_sentence() {
    for (test, contents) in [
        ("empty", &b""[..]),
        ("text", b"not a picture at all"),
        ("cut-png", &png(30, 30)[..40]),
        ("cut-jpeg", &EMBEDDED[..100]),
        ("gif", b"GIF89a\x01\0\x01\0\0\0\0;"),
    ] {
        let sentence = refusal(test, contents);
        assert!(sentence.contains("file cannot be read as a PNG or JPEG picture: "), "{sentence}");
    }
}

#[test]
fn a_missing_file_gets_a_sentence() {
    let sentence =
        find_edges(Some(Path::new("no/such/photo.png")), Path::new("out")).unwrap_err().to_string();
    assert!(sentence.starts_with("cannot open no/such/photo.png: "), "{sentence}");
}

#[test]
fn a_folder_that_cannot_be_made_gets_a_sentence() {
    let folder = folder("blocked");
    fs::write(folder.join("file"), "").unwrap();
    let sentence = find_edges(None, &folder.join("file/out")).unwrap_err().to_string();
    assert!(sentence.starts_with("cannot make the folder "), "{sentence}");
    fs::remove_dir_all(folder).unwrap();
}
