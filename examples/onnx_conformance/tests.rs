//! Tests of the example `onnx_conformance`.

use super::*;
use case::{Tensor, Values};
use convolve_examples::fetched::fetched;
use prost::Message;
use proto::{Attribute, Graph, Model, Node};

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor { shape: shape.to_vec(), values: Values::F32(values.to_vec()) }
}

fn ints(name: &str, ints: &[i64]) -> Attribute {
    Attribute { name: name.into(), ints: ints.to_vec(), ..Default::default() }
}

/// 1 2 3 by the kernel 1 1 is 3 5.
fn sums() -> Case {
    Case {
        operator: "Conv".into(),
        attributes: vec![ints("kernel_shape", &[2])],
        inputs: vec![tensor(&[1, 1, 3], &[1.0, 2.0, 3.0]), tensor(&[1, 1, 2], &[1.0, 1.0])],
        outputs: vec![tensor(&[1, 1, 2], &[3.0, 5.0])],
    }
}

fn failure(case: &Case) -> String {
    operators::run(case).unwrap_err().to_string()
}

/// How many cases of the wheel the library covers. A case more or less is a change of the library, or of what it reads.
const COVERED: usize = 57;

#[test]
fn every_case_of_onnx_that_is_covered_passes() {
    if !fetched(CASES, "scripts/onnx-conformance --fetch") {
        return;
    }
    let verdicts = conformance(Path::new(CASES)).unwrap();
    assert!(report(&verdicts));
    let passed = verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Passed(_))).count();
    assert_eq!((passed, verdicts.len()), (COVERED, 76));
}

#[test]
fn a_right_answer_passes_and_a_wrong_one_fails() {
    let mut case = sums();
    assert!(matches!(operators::run(&case).unwrap(), Verdict::Passed(by) if by.contains("direct")));
    case.outputs = vec![tensor(&[1, 1, 2], &[3.0, 5.0 + 4e-6])];
    assert!(failure(&case).contains("output 1 is 5, expected 5.000004"), "{}", failure(&case));
    case.outputs = vec![tensor(&[1, 1, 1], &[3.0])];
    assert_eq!(failure(&case), "the output is [1, 1, 1, 2], expected [1, 1, 1]");
}

#[test]
fn a_bias_is_part_of_both_convolutions() {
    let mut case = sums();
    case.inputs.push(tensor(&[1], &[0.5]));
    case.outputs = vec![tensor(&[1, 1, 2], &[3.5, 5.5])];
    assert!(matches!(operators::run(&case).unwrap(), Verdict::Passed(_)));
    case.operator = "ConvTranspose".into();
    case.outputs = vec![tensor(&[1, 1, 4], &[1.5, 3.5, 5.5, 3.5])];
    assert!(matches!(operators::run(&case).unwrap(), Verdict::Passed(_)));
}

#[test]
fn an_attribute_that_nobody_reads_is_refused() {
    let mut case = sums();
    case.attributes.push(ints("surprise", &[1]));
    assert_eq!(failure(&case), "Conv has an unknown attribute, `surprise`");
    case.attributes = vec![ints("pads", &[-1, 0])];
    assert_eq!(failure(&case), "pads = [-1, 0]: these should be 2 sizes");
}

#[test]
fn what_is_not_covered_has_a_reason() {
    let mut case = sums();
    case.inputs[0].shape = vec![1, 1, 1, 1, 3];
    assert!(matches!(operators::run(&case).unwrap(), Verdict::NotCovered(reason) if reason == "3-D"));
    for (values, element) in [(Values::U8(vec![0; 3]), "u8"), (Values::Other("f16"), "f16")] {
        case.inputs[0].values = values;
        let expected = format!("elements of type {element}");
        assert!(matches!(operators::run(&case).unwrap(), Verdict::NotCovered(reason) if reason == expected));
    }
    case.operator = "DeformConv".into();
    assert!(
        matches!(operators::run(&case).unwrap(), Verdict::NotCovered(reason) if reason == "deformable convolution")
    );
}

#[test]
fn maxima_of_bytes_are_exact() {
    let bytes = |shape: &[usize], values: &[u8]| Tensor {
        shape: shape.to_vec(),
        values: Values::U8(values.to_vec()),
    };
    let case = |expected| Case {
        operator: "MaxPool".into(),
        attributes: vec![ints("kernel_shape", &[2])],
        inputs: vec![bytes(&[1, 1, 3], &[254, 255, 0])],
        outputs: vec![bytes(&[1, 1, 2], &[255, expected])],
    };
    assert!(matches!(operators::run(&case(255)).unwrap(), Verdict::Passed(_)));
    assert!(failure(&case(254)).contains("output 1 is 255, expected 254"));
}

#[test]
fn an_lp_pooling_is_the_root_of_a_sum_of_powers() {
    let case = |p, expected: f32| Case {
        operator: "LpPool".into(),
        attributes: vec![
            ints("kernel_shape", &[2]),
            Attribute { name: "p".into(), int: p, ..Default::default() },
        ],
        inputs: vec![tensor(&[1, 1, 2], &[3.0, -4.0])],
        outputs: vec![tensor(&[1, 1, 1], &[expected])],
    };
    for (p, expected) in [(1, 7.0), (2, 5.0), (3, 4.497_941_4)] {
        assert!(matches!(operators::run(&case(p, expected)).unwrap(), Verdict::Passed(_)), "p = {p}");
        // 2 (2 + p + 2) u of it are allowed, 7e-7 at most.
        assert!(failure(&case(p, expected * (1.0 + 2e-6))).contains("they may differ by"), "p = {p}");
    }
    assert_eq!(failure(&case(0, 0.0)), "p = 0: it should be at least 1");
}

#[test]
fn an_unpooling_puts_values_back_into_the_corner_of_its_output() {
    let longs = |shape: &[usize], values: &[i64]| Tensor {
        shape: shape.to_vec(),
        values: Values::I64(values.to_vec()),
    };
    let case = |index, output: i64, expected: &[f32]| Case {
        operator: "MaxUnpool".into(),
        attributes: vec![ints("kernel_shape", &[2]), ints("strides", &[2])],
        inputs: vec![
            tensor(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]),
            longs(&[1, 2, 2], &[0, 3, 5, index]),
            longs(&[3], &[1, 2, output]),
        ],
        outputs: vec![tensor(&[1, 2, usize::try_from(output).unwrap()], expected)],
    };
    let passes = |case: &Case| matches!(operators::run(case).unwrap(), Verdict::Passed(by) if by == "unpool");
    let four = [1.0, 0.0, 0.0, 2.0, 0.0, 3.0, 4.0, 0.0];
    assert!(passes(&case(6, 4, &four)));
    assert!(passes(&case(6, 5, &[1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0])));
    assert!(failure(&case(7, 4, &four)).starts_with("unpool: output 6 is 0, expected 4"));
    assert_eq!(failure(&case(8, 4, &four)), "index = 8: it must be less than the elements of dst");
    assert_eq!(failure(&case(6, 3, &[0.0; 6])), "an image of 1 x 4 does not fit the output [1, 2, 1, 3]");
}

#[test]
fn an_index_is_checked_in_both_orders_of_storage() {
    let order = |order, index| Case {
        operator: "MaxPool".into(),
        attributes: vec![
            ints("kernel_shape", &[2, 3]),
            Attribute { name: "storage_order".into(), int: order, ..Default::default() },
        ],
        inputs: vec![tensor(&[1, 1, 2, 3], &[0.0, 0.0, 0.0, 7.0, 7.0, 0.0])],
        outputs: vec![
            tensor(&[1, 1, 1, 1], &[7.0]),
            Tensor { shape: vec![1, 1, 1, 1], values: Values::I64(vec![index]) },
        ],
    };
    assert!(matches!(operators::run(&order(0, 3)).unwrap(), Verdict::Passed(_)));
    assert!(matches!(operators::run(&order(1, 1)).unwrap(), Verdict::Passed(_)));
    assert!(failure(&order(0, 4)).ends_with("output 0 is the pixel 3, expected 4"));
}

#[test]
fn files_are_read_as_they_were_written() {
    let folder = std::env::temp_dir().join(format!("convolve-onnx-{}", std::process::id()));
    let case = folder.join("test_conv");
    std::fs::create_dir_all(case.join("test_data_set_0")).unwrap();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let node = Node {
        operator: "Conv".into(),
        inputs: words(&["x", "w"]),
        outputs: words(&["y"]),
        attributes: vec![Attribute {
            name: "auto_pad".into(),
            string: b"VALID".to_vec(),
            ..Default::default()
        }],
    };
    let model = |nodes| Model { graph: Some(Graph { nodes, ..Default::default() }) }.encode_to_vec();
    std::fs::write(case.join("model.onnx"), model(vec![node.clone()])).unwrap();
    let raw = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let write = |name: &str, tensor: proto::Tensor| {
        std::fs::write(case.join("test_data_set_0").join(name), tensor.encode_to_vec()).unwrap();
    };
    let floats = |shape: &[i64]| proto::Tensor { shape: shape.to_vec(), element: 1, ..Default::default() };
    write("input_0.pb", proto::Tensor { raw: raw(&[1.0, 2.0, 3.0]), ..floats(&[1, 1, 3]) });
    write("input_1.pb", proto::Tensor { floats: vec![1.0, 1.0], ..floats(&[1, 1, 2]) });
    write("output_0.pb", proto::Tensor { raw: raw(&[3.0, 5.0]), ..floats(&[1, 1, 2]) });
    let verdict = || conformance(&folder).unwrap().pop().unwrap().1;
    assert!(matches!(verdict(), Verdict::Passed(_)), "{:?}", verdict());

    write("output_0.pb", proto::Tensor { raw: raw(&[3.0]), ..floats(&[1, 1, 2]) });
    assert!(
        matches!(verdict(), Verdict::Failed(error) if error.ends_with("1 elements, but [1, 1, 2] has 2"))
    );
    std::fs::write(case.join("model.onnx"), model(vec![node.clone(), node])).unwrap();
    assert!(matches!(verdict(), Verdict::Failed(error) if error.ends_with("it has 2 nodes, a case has one")));
    std::fs::write(case.join("model.onnx"), b"no protobuf").unwrap();
    assert!(matches!(verdict(), Verdict::Failed(error) if error.contains("model.onnx: ")));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(
        conformance(&folder).unwrap_err().to_string().contains("scripts/onnx-conformance fetches the cases")
    );
}
