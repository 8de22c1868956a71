//! Any text and any `Conv2d`: nothing panics, and every size that is accepted is that of 128-bit arithmetic.
#![no_main]

use convolve::{Conv2d, NamedProblem, Padding, problems};
use convolve_testkit::reference::same_geometry;
use libfuzzer_sys::fuzz_target;

#[derive(arbitrary::Arbitrary, Debug)]
struct Input<'a> {
    text: &'a str,
    numbers: [usize; 12],
    sides: [usize; 4],
    padding: u8,
}

fuzz_target!(|input: Input<'_>| {
    let [top, bottom, left, right] = input.sides;
    let explicit = Padding::Explicit { top, bottom, left, right };
    let [batch, in_channels, out_channels, groups, ih, iw, kh, kw, sh, sw, dh, dw] = input.numbers;
    let raw = Conv2d { batch, groups, ..Conv2d::new(in_channels, out_channels, [kh, kw]) }
        .input([ih, iw])
        .stride([sh, sw])
        .dilation([dh, dw])
        .padding(
            [Padding::Valid, Padding::Same, Padding::SameLower, explicit][usize::from(input.padding % 4)],
        );
    let parsed = input.text.parse::<NamedProblem>().ok().map(|problem| problem.conv);
    let listed = problems(input.text).filter_map(|(_, problem)| problem.ok()).map(|problem| problem.conv);
    for conv in listed.chain(parsed).chain([raw]) {
        same_geometry(&conv).unwrap();
        let text = conv.to_string();
        if let Ok(geometry) = conv.geometry() {
            let again: Conv2d = text.parse().unwrap();
            assert_eq!(again.geometry().unwrap().output(), geometry.output(), "{text}");
            assert_eq!(again.to_string(), text);
        }
    }
});
