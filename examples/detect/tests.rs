//! Tests of the example `detect`.

use super::*;
use convolve_examples::fetched::fetched;
use image::Rgb;

fn face([left, top, right, bottom]: [f32; 4], score: f32) -> Face {
    Face { left, top, right, bottom, score }
}

fn network() -> Option<Network> {
    fetched(WEIGHTS, "examples/fetch detect").then(|| Network::load(Path::new(WEIGHTS)).unwrap())
}

#[test]
fn it_finds_the_one_face_of_the_photograph() {
    let Some(mut network) = network() else { return };
    let photo = photo(None).unwrap();
    let (faces, _) = detect(&mut network, &photo, 0.5).unwrap();
    assert_eq!(faces.len(), 1, "{faces:?}");
    // From the hairline to the chin, from ear to ear; drawn by hand.
    let by_hand = face([110.0, 42.0, 168.0, 120.0], 1.0);
    assert!(faces[0].overlap(&by_hand) >= 0.5, "{faces:?}");
}

#[test]
fn it_finds_the_face_again_where_it_has_moved_to() {
    let Some(mut network) = network() else { return };
    let photo = photo(None).unwrap();
    let (alone, _) = detect(&mut network, &photo, 0.5).unwrap();
    // In a wide picture, at the right: the same face, 200 pixels further.
    let mut wide = RgbImage::from_pixel(520, 320, Rgb([117, 115, 97]));
    imageops::replace(&mut wide, &photo, 200, 0);
    let (moved, _) = detect(&mut network, &wide, 0.5).unwrap();
    assert_eq!(moved.len(), 1, "{moved:?}");
    let Face { left, top, right, bottom, score } = moved[0];
    let back = face([left - 200.0, top, right - 200.0, bottom], score);
    assert!(back.overlap(&alone[0]) >= 0.7, "{alone:?} {moved:?}");
}

#[test]
fn nobody_is_found_where_nobody_is() {
    let Some(mut network) = network() else { return };
    let (faces, _) = detect(&mut network, &RgbImage::from_pixel(300, 200, Rgb([90, 130, 170])), 0.5).unwrap();
    assert!(faces.is_empty(), "{faces:?}");
}

#[test]
fn a_box_is_where_its_cell_and_its_anchor_say() {
    let mut answer = vec![-20.0; network::CELLS * network::CELLS * 25];
    // Row 2, column 3, the first anchor: in the middle of the cell, as large as the anchor.
    answer[(2 * network::CELLS + 3) * 25..][..5].copy_from_slice(&[0.0, 0.0, 0.0, 0.0, 20.0]);
    let boxes = boxes::boxes(&answer, 130.0, 0.5);
    let [Face { left, top, right, bottom, score }] = boxes[..] else { panic!("{boxes:?}") };
    let near = |x: f32, expected: f32| (x - expected).abs() < 1e-3;
    assert!(near(left + right, 70.0) && near(top + bottom, 50.0), "{boxes:?}");
    assert!(near(right - left, 16.03231) && near(bottom - top, 20.94468) && near(score, 1.0), "{boxes:?}");
}

#[test]
fn of_boxes_that_overlap_the_surest_stays() {
    let (weak, sure) = (face([0.0, 0.0, 10.0, 10.0], 0.6), face([1.0, 0.0, 11.0, 10.0], 0.9));
    let far = face([20.0, 0.0, 30.0, 10.0], 0.7);
    assert_eq!(boxes::surest(vec![weak, sure, far]), [sure, far]);
    assert!((weak.overlap(&sure) - 90.0 / 110.0).abs() < 1e-6 && weak.overlap(&far) == 0.0);
}

#[test]
fn boxes_beyond_the_photograph_are_drawn_at_its_rim() {
    let mut photo = RgbImage::new(20, 10);
    boxes::draw(&mut photo, &face([-5.0, -5.0, 50.0, 50.0], 1.0));
    assert_eq!((photo.get_pixel(0, 0).0, photo.get_pixel(19, 9).0), ([255, 220, 0], [255, 220, 0]));
    assert_eq!(photo.get_pixel(10, 5).0, [0, 0, 0]);
}

#[test]
fn missing_weights_are_an_error_that_says_how_to_get_them() {
    let error = Network::load(Path::new("no/such/folder")).err().unwrap().to_string();
    assert!(error.contains("examples/fetch detect"), "{error}");
}

#[test]
fn a_probability_is_from_0_to_1() {
    for least in ["0", "0.5", "1"] {
        assert!(probability(least).is_ok(), "{least}");
    }
    for least in ["-0.1", "1.1", "NaN", "inf", "", "much"] {
        assert!(probability(least).is_err(), "{least}");
    }
    let error = photo(Some(Path::new("Cargo.toml"))).unwrap_err().to_string();
    assert!(error.starts_with("Cargo.toml cannot be read as a PNG or JPEG picture: "), "{error}");
}
