//! The one written form of a problem: oneDNN benchdnn's convolution strings, read and written.
//!
//! The rules are those of benchdnn's `str2desc` (tests/benchdnn/conv), except where that would accept a surprise: a number that
//! is not used, a repeated key, a negative padding, an output rounded the wrong way. Those are refused with a reason.

use crate::{Conv2d, Error, Layout, Padding, WeightLayout};
use core::fmt::{Display, Formatter};
use core::str::FromStr;
use std::borrow::Cow;

/// A problem string of oneDNN's benchdnn, with the name that may end it: `mb1ic64ih56oc64kh3ph1n"resnet_50:res2a"`.
///
/// A string is a sequence of keys with their numbers, in any order; `_` between them is ignored.
///
/// | key        | meaning                                                   | if it is missing                         |
/// |------------|-----------------------------------------------------------|------------------------------------------|
/// | `g`        | groups                                                    | 1                                        |
/// | `mb`       | batch                                                     | 2                                        |
/// | `ic`, `oc` | channels, of all groups                                   | refused                                  |
/// | `ih`, `iw` | input                                                     | see below                                |
/// | `kh`, `kw` | kernel                                                    | see below                                |
/// | `sh`, `sw` | stride                                                    | 1                                        |
/// | `dh`, `dw` | dilation **minus one**: `dh0` is dense                    | 0                                        |
/// | `ph`, `pw` | padding before the image, top and left                    | half of what the output needs, otherwise 0 |
/// | `oh`, `ow` | output                                                    | computed with the same padding after as before |
/// | `n`        | name: all the rest, with or without quotes                | no name                                  |
///
/// **An axis is given as a whole or not at all.** If nothing is said about the width, it is the height's copy, with kernel,
/// stride, padding, dilation and output; if nothing is said about the height (a 1-D problem), it is 1 pixel with a kernel of 1.
/// As soon as something is said about an axis, its input and kernel are required. Depth (`id`, `kd`, ...) is refused.
///
/// **The padding after the image is in the output**: bottom is the smallest that gives `oh`, and 0 if a few last rows are
/// left over by the stride. More than that the string cannot say: a [`Conv2d`] whose bottom padding is larger than its
/// output needs comes back with the smallest one, which no window can tell from the original. Layouts are not in the string
/// either: parsing gives NCHW and OIHW.
///
/// So for every [`Conv2d`] that [`geometry`](Conv2d::geometry) accepts, `conv.to_string().parse::<Conv2d>()` computes the
/// same convolution, and is the same `Conv2d` up to layouts and a padding normalised to [`Padding::Explicit`]. Two problems
/// with the same string are the same convolution.
///
/// ```
/// use convolve_core::{Conv2d, NamedProblem};
/// let problem: NamedProblem = "g1mb8_ic3ih224_oc64oh112_kh7_sh2ph3_n\"resnet:conv1\"".parse()?;
/// assert_eq!(problem.name.as_deref(), Some("resnet:conv1"));
/// assert_eq!(problem.conv.geometry()?.output(), [112, 112]);
/// assert_eq!(
///     problem.to_string(),
///     "mb8ic3ih224iw224oc64oh112ow112kh7kw7sh2sw2ph3pw3dh0dw0n\"resnet:conv1\""
/// );
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedProblem {
    /// What follows `n`, without its quotes.
    pub name: Option<String>,
    /// The problem itself.
    pub conv: Conv2d,
}

impl Display for NamedProblem {
    /// The string of the problem, then `n"name"`. In a file of problems a name has no white space.
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        match &self.name {
            Some(name) => f.pad(&format!("{}n\"{name}\"", self.conv)),
            None => self.conv.fmt(f),
        }
    }
}

impl FromStr for NamedProblem {
    type Err = Error;

    /// Reads a problem with or without a name.
    ///
    /// # Errors
    /// [`Error::Problem`], with the key, its position (counted from 1) and the likely fix.
    fn from_str(text: &str) -> Result<Self, Error> {
        let entries = Entries::read(text).and_then(|entries| Ok((entries.conv()?, entries.name)));
        let (conv, name) = entries.map_err(|reason| Error::Problem { text: text.into(), reason })?;
        Ok(Self { name: name.map(str::to_owned), conv })
    }
}

impl Display for Conv2d {
    /// The problem as a benchdnn string, see [`NamedProblem`]; layouts are not part of it. Always the same keys in the same
    /// order (`g` only if there are groups), so it serves as a key. A problem that is not valid is written without its output.
    ///
    /// ```
    /// use convolve_core::{Conv2d, Padding};
    /// let conv = Conv2d::new(32, 64, 3).input([8, 9]).groups(32).stride(2).padding(Padding::Same);
    /// assert_eq!(conv.to_string(), "g32mb1ic32ih8iw9oc64oh4ow5kh3kw3sh2sw2ph0pw1dh0dw0");
    /// ```
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        let Self { batch, in_channels, out_channels, groups, .. } = *self;
        let ([ih, iw], [kh, kw], [sh, sw]) = (self.input, self.kernel, self.stride);
        // Wide enough for the dilation that does not exist, 0: it is written as -1, and refused when read.
        let [dh, dw] = self.dilation.map(|dilation| dilation as i128 - 1);
        let groups = if groups == 1 { String::new() } else { format!("g{groups}") };
        // Note that errors of `geometry` must not write the problem with this `Display`.
        let (output, padding) = match (self.geometry(), self.padding) {
            (Ok(geometry), _) => {
                let ([oh, ow], [[top, _], [left, _]]) = (geometry.output(), geometry.padding());
                (format!("oh{oh}ow{ow}"), format!("ph{top}pw{left}"))
            }
            (Err(_), Padding::Explicit { top, left, .. }) => (String::new(), format!("ph{top}pw{left}")),
            (Err(_), Padding::Valid) => (String::new(), "ph0pw0".to_owned()),
            (Err(_), Padding::Same | Padding::SameLower) => (String::new(), String::new()),
        };
        f.pad(&format!(
            "{groups}mb{batch}ic{in_channels}ih{ih}iw{iw}oc{out_channels}{output}kh{kh}kw{kw}sh{sh}sw{sw}{padding}dh{dh}dw{dw}"
        ))
    }
}

impl FromStr for Conv2d {
    type Err = Error;

    /// Reads a benchdnn string without a name, see [`NamedProblem`]; the result is NCHW and OIHW.
    ///
    /// # Errors
    /// [`Error::Problem`], with the key, its position (counted from 1) and the likely fix.
    ///
    /// ```
    /// use convolve_core::Conv2d;
    /// let conv: Conv2d = "mb1ic64ih56oc64kh3ph1".parse()?;
    /// assert_eq!(conv, Conv2d::new(64, 64, 3).input(56).padding(1));
    /// let error = "mb1ic64ih56oc64ph1".parse::<Conv2d>().unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "problem `mb1ic64ih56oc64ph1`: `kh` is missing although `ih56` at position 8 speaks of the height: add the \
    ///      kernel height, e.g. `kh3`"
    /// );
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    fn from_str(text: &str) -> Result<Self, Error> {
        let conv = Entries::read(text).and_then(|entries| match entries.name {
            Some(name) => {
                Err(format!("it has a name, `{name}`, and a Conv2d has none: parse it as a NamedProblem"))
            }
            None => entries.conv(),
        });
        conv.map_err(|reason| Error::Problem { text: text.into(), reason })
    }
}

/// The problems of a benchdnn input file, each with the number of its line, counted from 1.
///
/// As in benchdnn, words are separated by white space (so a name has none), a word that begins with `#` starts a comment, and a
/// word that ends with `\` is continued by the next word. Words that begin with `-` are flags and are skipped; they have no
/// effect here, `--mb` and `--batch` neither. Every other word is a problem; a bad one does not stop the rest.
///
/// ```
/// use convolve_core::problems;
/// let file = "
///     ## ResNet
///     --reset --dir=FWD_B
///     ic3ih224oc64kh7sh2ph3n\"conv1\"   # the first layer
///     --dir=BWD_D ic64ih56oc64kh3ph1 ic64ih56oc64
/// ";
/// let lines: Vec<_> = problems(file).map(|(line, problem)| (line, problem.is_ok())).collect();
/// assert_eq!(lines, [(4, true), (5, true), (5, false)]);
/// ```
pub fn problems(text: &str) -> impl Iterator<Item = (usize, Result<NamedProblem, Error>)> {
    let mut words = text.lines().enumerate().flat_map(|(line, text)| {
        text.split_whitespace().take_while(|word| !word.starts_with('#')).map(move |word| (line + 1, word))
    });
    core::iter::from_fn(move || {
        loop {
            let (line, first) = words.next()?;
            let mut word = Cow::Borrowed(first);
            while let Some(open) = word.strip_suffix('\\') {
                word = Cow::Owned(open.to_owned() + words.next().map_or("", |(_, next)| next));
            }
            if !word.is_empty() && !word.starts_with('-') {
                return Some((line, word.parse()));
            }
        }
    })
}

const KEYS: [&str; 16] =
    ["g", "mb", "ic", "ih", "iw", "oc", "oh", "ow", "kh", "kw", "sh", "sw", "ph", "pw", "dh", "dw"];
const DEPTH: [&str; 6] = ["id", "od", "kd", "sd", "pd", "dd"];

/// One key with its number.
#[derive(Clone, Copy)]
struct Entry<'a> {
    key: &'static str,
    value: usize,
    /// As it was written: key and digits.
    written: &'a str,
    /// Characters before it, plus one.
    position: usize,
}

/// Names what was written, and where.
impl Display for Entry<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        write!(f, "`{}` at position {}", self.written, self.position)
    }
}

/// A problem string, taken apart.
struct Entries<'a> {
    entries: Vec<Entry<'a>>,
    name: Option<&'a str>,
}

/// One axis with its padding before and after.
#[derive(Clone, Copy)]
struct Axis {
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    padding: [usize; 2],
}

/// The words for an axis.
struct Words {
    axis: &'static str,
    lines: &'static str,
    /// Of input, kernel, stride, padding, dilation, output.
    keys: [&'static str; 6],
}

const HEIGHT: Words = Words { axis: "height", lines: "rows", keys: ["ih", "kh", "sh", "ph", "dh", "oh"] };
const WIDTH: Words = Words { axis: "width", lines: "columns", keys: ["iw", "kw", "sw", "pw", "dw", "ow"] };

impl<'a> Entries<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        let mut this = Self { entries: Vec::new(), name: None };
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches('_');
            let position = text[..text.len() - rest.len()].chars().count() + 1;
            if rest.is_empty() {
                return Ok(this);
            }
            if let Some(name) = rest.strip_prefix('n') {
                this.name = read_name(name, position)?;
                return Ok(this);
            }
            let entry = read_entry(rest, position)?;
            if let Some(before) = this.get(entry.key) {
                return Err(format!(
                    "{entry} is the second `{}`, after {before}: keep one of them",
                    entry.key
                ));
            }
            this.entries.push(entry);
            rest = &rest[entry.written.len()..];
        }
    }

    fn get(&self, key: &str) -> Option<Entry<'a>> {
        self.entries.iter().copied().find(|entry| entry.key == key)
    }

    fn conv(&self) -> Result<Conv2d, String> {
        let required = |key, what| match self.get(key) {
            Some(entry) => Ok(entry.value),
            None => Err(format!("`{key}` is missing: add the number of {what} channels, e.g. `{key}64`")),
        };
        let (in_channels, out_channels) = (required("ic", "input")?, required("oc", "output")?);
        let [h, w] = match (self.axis(&HEIGHT)?, self.axis(&WIDTH)?) {
            (Some(h), Some(w)) => [h, w],
            (Some(h), None) => [h, self.copy(h)?],
            (None, Some(w)) => [Axis { input: 1, kernel: 1, stride: 1, dilation: 1, padding: [0, 0] }, w],
            (None, None) => {
                return Err("`ih` and `kh` are missing: add input and kernel, e.g. `ih56kh3`".into());
            }
        };
        let [[top, bottom], [left, right]] = [h.padding, w.padding];
        Ok(Conv2d {
            batch: self.get("mb").map_or(2, |entry| entry.value),
            in_channels,
            out_channels,
            groups: self.get("g").map_or(1, |entry| entry.value),
            input: [h.input, w.input],
            kernel: [h.kernel, w.kernel],
            stride: [h.stride, w.stride],
            dilation: [h.dilation, w.dilation],
            padding: Padding::Explicit { top, bottom, left, right },
            layout: Layout::Nchw,
            weight_layout: WeightLayout::Oihw,
        })
    }

    /// The width of a problem that speaks of the height only. The entries that are too weak to speak of an axis, such as
    /// `sw1`, must not contradict it.
    fn copy(&self, h: Axis) -> Result<Axis, String> {
        let copies = [("sw", "sh", h.stride), ("pw", "ph", h.padding[0]), ("dw", "dh", h.dilation - 1)];
        for (key, from, value) in copies {
            if let Some(entry) = self.get(key).filter(|entry| entry.value != value) {
                return Err(format!(
                    "{entry} contradicts `{from}{value}`: without `iw` and `kw` the width is a copy of the height; add them"
                ));
            }
        }
        Ok(h)
    }

    /// What the string says of one axis; nothing if it says nothing.
    fn axis(&self, words: &Words) -> Result<Option<Axis>, String> {
        let Words { axis, lines, keys } = *words;
        let entries = keys.map(|key| self.get(key));
        let defaults = [None, None, Some(1), Some(0), Some(0), None];
        let speaks = entries
            .iter()
            .zip(defaults)
            .filter_map(|(entry, default)| entry.filter(|entry| Some(entry.value) != default))
            .min_by_key(|entry| entry.position);
        let Some(speaks) = speaks else { return Ok(None) };
        let required = |index: usize, what| match entries[index] {
            Some(entry) => Ok(entry.value),
            None => Err(format!(
                "`{key}` is missing although {speaks} speaks of the {axis}: add the {what} {axis}, e.g. `{key}{example}`",
                key = keys[index],
                example = ["56", "3"][index],
            )),
        };
        let (input, kernel) = (required(0, "input")?, required(1, "kernel")?);
        let [stride, before] =
            [(2, 1), (3, 0)].map(|(index, default)| entries[index].map_or(default, |e| e.value));
        let dilation = match entries[4] {
            None => 1,
            Some(entry) => entry.value.checked_add(1).ok_or_else(|| {
                format!("{entry} does not fit: the dilation is one more than that; use a smaller one")
            })?,
        };
        let extent = (kernel - 1).checked_mul(dilation).and_then(|extent| extent.checked_add(1));
        let padding = match entries[5] {
            None => {
                // A kernel that does not fit stays as it is, for `geometry` to say so.
                let after = extent.and_then(|extent| {
                    let padded = input.checked_add(before)?.checked_add(before)?;
                    let left_over = padded.checked_sub(extent)? % stride;
                    Some(before.saturating_sub(left_over))
                });
                [before, after.unwrap_or(before)]
            }
            Some(output) => {
                // Pixels from the first that a window covers to the last.
                let covered = extent.and_then(|e| (output.value - 1).checked_mul(stride)?.checked_add(e));
                let too_large =
                    || format!("{output} with this kernel and stride does not fit the address space");
                let covered = covered.ok_or_else(too_large)?;
                let before = match (entries[3], covered.checked_sub(input)) {
                    (Some(entry), _) => entry.value,
                    (None, Some(both)) => both / 2,
                    (None, None) if input - covered == 1 => 0,
                    (None, None) => {
                        return Err(format!(
                            "{output} covers {covered} of {input} {lines}, so the padding computed from it is negative: \
                             add `{}0`",
                            keys[3]
                        ));
                    }
                };
                let available = input.checked_add(before).ok_or_else(too_large)?;
                let unused = available.saturating_sub(covered);
                if unused >= stride {
                    return Err(format!(
                        "{output} leaves {unused} {lines} unused, enough for another output at stride {stride}: the {axis} \
                         would be {}; correct or remove `{}`",
                        (unused / stride).saturating_add(output.value),
                        keys[5]
                    ));
                }
                [before, covered.saturating_sub(available)]
            }
        };
        Ok(Some(Axis { input, kernel, stride, dilation, padding }))
    }
}

fn read_name(name: &str, position: usize) -> Result<Option<&str>, String> {
    match name.strip_prefix('"') {
        None if name.is_empty() => Ok(None),
        None => Ok(Some(name)),
        Some(quoted) => match quoted.strip_suffix('"') {
            Some(name) => Ok(Some(name)),
            None => Err(format!(
                "the name at position {position} has no closing quote: it is the last entry, and in a file it has no spaces"
            )),
        },
    }
}

fn read_entry(rest: &str, position: usize) -> Result<Entry<'_>, String> {
    let run = |text: &str, is: fn(u8) -> bool| text.bytes().position(|byte| !is(byte)).unwrap_or(text.len());
    let letters = run(rest, |byte| byte.is_ascii_alphabetic());
    let (word, digits) = rest.split_at(letters);
    if word.is_empty() {
        let found = rest.chars().next().unwrap_or_default();
        return Err(if found.is_whitespace() {
            format!("white space at position {position}: a problem is one word")
        } else {
            format!("`{found}` at position {position} is no key: keys are {}", KEYS.join(" "))
        });
    }
    if DEPTH.contains(&word) {
        return Err(format!(
            "3-D problems are not supported: `{word}` at position {position} speaks of the depth; remove it if the depth is 1"
        ));
    }
    let Some(key) = KEYS.into_iter().find(|key| *key == word) else {
        let two = KEYS.into_iter().find(|key| {
            word.strip_prefix(key).is_some_and(|next| KEYS.iter().any(|key| next.starts_with(key)))
        });
        return Err(match two {
            Some(key) => format!("`{key}` at position {position} has no number: write it as `{key}1`"),
            None => format!("unknown key `{word}` at position {position}: keys are {}", KEYS.join(" ")),
        });
    };
    let written = &rest[..letters + run(digits, |byte| byte.is_ascii_digit())];
    let digits = &digits[..written.len() - letters];
    if digits.is_empty() {
        return Err(if rest[letters..].starts_with('-') {
            format!("`{key}` at position {position} is negative: no number of a problem is")
        } else {
            format!("`{key}` at position {position} has no number: write it as `{key}1`")
        });
    }
    let Ok(value) = digits.parse() else {
        return Err(format!(
            "`{written}` at position {position} does not fit {} bits: use a smaller number",
            usize::BITS
        ));
    };
    let entry = Entry { key, value, written, position };
    if value == 0 && !matches!(key, "mb" | "ph" | "pw" | "dh" | "dw") {
        let fix = if matches!(key, "oh" | "ow") { "; without it, it is computed" } else { "" };
        return Err(format!("{entry} must be at least 1{fix}"));
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition;
    use proptest::prelude::*;

    fn conv(text: &str) -> Conv2d {
        text.parse().unwrap()
    }

    fn reason(text: &str) -> String {
        match text.parse::<NamedProblem>() {
            Err(Error::Problem { text: of, reason }) if of == text => reason,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn missing_keys_have_the_values_of_benchdnn() {
        let explicit = |top, bottom, left, right| Padding::Explicit { top, bottom, left, right };
        let rows = [
            ("ic1ih7oc2kh3", Conv2d::new(1, 2, 3).input(7).batch(2).padding(0)),
            ("mb0_ic1ih7_oc2kh3", Conv2d::new(1, 2, 3).input(7).batch(0).padding(0)),
            ("__mb1__ic1_ih7_oc2_kh3__", Conv2d::new(1, 2, 3).input(7).padding(0)),
            (
                "mb1g3ic3oc6ih5kh3dh1sh2ph2",
                Conv2d::new(3, 6, 3).input(5).groups(3).dilation(2).stride(2).padding(2),
            ),
            // A width that speaks for itself takes nothing from the height.
            ("mb1ic1ih7iw8oc2kh3kw1ph1", Conv2d::new(1, 2, [3, 1]).input([7, 8]).padding([1, 0])),
            ("mb1ic1ih7oc2kh3sh1sw1ph0pw0dw0", Conv2d::new(1, 2, 3).input(7).padding(0)),
            ("mb1ic1iw7oc2kw3pw1", Conv2d::new(1, 2, [1, 3]).input([1, 7]).padding([0, 1])),
            ("mb1ic1iw7oc2kw3pw1sh1ph0dh0", Conv2d::new(1, 2, [1, 3]).input([1, 7]).padding([0, 1])),
            // Padding computed from the output: an odd pixel goes to the end.
            ("mb1ic1ih7oc2oh7kh3", Conv2d::new(1, 2, 3).input(7).padding(1)),
            (
                "mb1ic3ih300oc32oh150kh3sh2",
                Conv2d::new(3, 32, 3).input(300).stride(2).padding(explicit(0, 1, 0, 1)),
            ),
            ("mb1ic1ih5oc1oh2kh2sh4", Conv2d::new(1, 1, 2).input(5).stride(4).padding(explicit(0, 1, 0, 1))),
            ("mb1ic1ih7oc1oh2kh2sh4", Conv2d::new(1, 1, 2).input(7).stride(4).padding(0)),
            // oneDNN's regressions: large padding at the end, and less than none.
            ("mb1ic8oc8_ih1oh16kh2ph1", Conv2d::new(8, 8, 2).input(1).padding(explicit(1, 15, 1, 15))),
            (
                "mb1g1ic16ih7iw1oc16oh1ow1kh11kw1sh2sw1ph5pw0n",
                Conv2d::new(16, 16, [11, 1]).input([7, 1]).stride([2, 1]).padding(explicit(5, 0, 0, 0)),
            ),
            (
                "mb1_ic1oc16_iw1_ow29_kw14_pw28_dw1",
                Conv2d::new(1, 16, [1, 14]).input([1, 1]).dilation([1, 2]).padding(explicit(0, 0, 28, 26)),
            ),
            // The smallest padding after the image, as in oneDNN.
            (
                "mb1ic3ih224oc64kh7sh2ph3",
                Conv2d::new(3, 64, 7).input(224).stride(2).padding(explicit(3, 2, 3, 2)),
            ),
        ];
        for (text, expected) in rows {
            let parsed = conv(text);
            assert_eq!(parsed, expected, "{text}");
            assert!(parsed.geometry().is_ok(), "{text}");
        }
        // What does not fit is left to `geometry`.
        assert!(matches!(
            conv("ic1ih2oc1kh3").geometry(),
            Err(Error::KernelDoesNotFit { axis: "height", .. })
        ));
        assert!(conv(&format!("ic1ih2oc1kh3ph{}", usize::MAX)).geometry().is_err());
    }

    #[test]
    fn a_refusal_names_the_key_its_position_and_the_fix() {
        let beyond = format!("ic{}0", usize::MAX);
        let dilation = format!("ic1ih7oc1kh3dh{}", usize::MAX);
        let output = format!("ic1ih7oc1kh3oh{}sh2", usize::MAX);
        let rows: [(&str, &[&str]); _] = [
            ("", &["`ic` is missing", "`ic64`"]),
            ("ic1ih7kh3", &["`oc` is missing", "output"]),
            ("ic1oc1", &["`ih` and `kh` are missing", "`ih56kh3`"]),
            ("ic1oc1kh3", &["`ih` is missing", "`kh3` at position 7", "`ih56`"]),
            ("ic1oc1ih9iw9kh3", &["`kw` is missing", "`iw9` at position 10"]),
            ("ic1oc1ow9ih9kh3", &["`iw` is missing", "`ow9` at position 7"]),
            ("ic1oc1ih9kh3sh2sw1", &["`sw1` at position 16 contradicts `sh2`", "add them"]),
            ("ic1oc1ih9kh3ph1pw0", &["`pw0` at position 16 contradicts `ph1`"]),
            ("ic1oc1ih9kh3dh1dw0", &["`dw0` at position 16 contradicts `dh1`"]),
            ("ic1oc1ih9id1kh3", &["3-D problems are not supported: `id` at position 10"]),
            ("ic1oc1ih9kh3dd0", &["3-D problems are not supported: `dd`"]),
            ("ic1oc1ih9ic2", &["`ic2` at position 10 is the second `ic`", "`ic1` at position 1", "keep one"]),
            ("ic1ocih9", &["`oc` at position 4 has no number", "`oc1`"]),
            ("ic1oc", &["`oc` at position 4 has no number"]),
            ("ic1oc_3", &["`oc` at position 4 has no number"]),
            ("ic1ph-1", &["`ph` at position 4 is negative"]),
            ("ic1stride2", &["unknown key `stride` at position 4", "sh sw"]),
            ("IC1", &["unknown key `IC` at position 1"]),
            ("ic1 oc1", &["white space at position 4"]),
            ("ic1öc1", &["`ö` at position 4"]),
            ("ic1_ö", &["`ö` at position 5"]),
            ("ic1oc1ih9kh3!", &["`!` at position 13"]),
            ("ic1oc1ih9kh3\0", &["at position 13"]),
            ("ic1oc1ih9kh3n\"name", &["name at position 13 has no closing quote"]),
            ("ic1oc1ih9kh3n\"", &["name at position 13 has no closing quote"]),
            ("g0ic1", &["`g0` at position 1 must be at least 1"]),
            ("ic1oh0", &["`oh0` at position 4 must be at least 1", "computed"]),
            (&beyond, &["at position 1 does not fit", "smaller"]),
            (&dilation, &["`dh", "at position 13 does not fit"]),
            (&output, &["`oh", "at position 13", "does not fit the address space"]),
            ("ic1oc1ih9kh3oh5", &["`oh5` at position 13", "negative", "`ph0`"]),
            (
                "ic1oc1ih9kh3oh5ph0",
                &["`oh5` at position 13 leaves 2 rows unused", "would be 7", "remove `oh`"],
            ),
            ("ic1oc1ih9iw9kh3kw3ow5pw0", &["`ow5` at position 19 leaves 2 columns unused"]),
        ];
        for (text, parts) in rows {
            let reason = reason(text);
            for part in parts {
                assert!(reason.contains(part), "{text}: {reason}; should say {part}");
            }
        }
        let named = "ic1ih7oc1kh3n\"x\"".parse::<Conv2d>().unwrap_err().to_string();
        assert!(named.contains("parse it as a NamedProblem"), "{named}");
    }

    #[test]
    fn a_name_is_all_that_follows_n() {
        let name = |text: &str| text.parse::<NamedProblem>().unwrap().name;
        for (end, expected) in [
            ("", None),
            ("n", None),
            ("n\"\"", Some("")),
            ("_n\"alexnet:conv1*2\"", Some("alexnet:conv1*2")),
            ("nkh3_ih", Some("kh3_ih")),
            ("n\"kh3\"\"", Some("kh3\"")),
            ("n\"ö and space\"", Some("ö and space")),
        ] {
            assert_eq!(name(&format!("ic1ih7oc1kh3{end}")).as_deref(), expected, "{end}");
        }
    }

    #[test]
    fn a_file_gives_its_problems_in_order_and_nothing_else() {
        let file = "# DNNL-537\n\
             --reset --dt=f32 --batch=shapes_basic\r\n\
             \n\
             --dir=FWD_D,BWD_D \\\n  --attr-post-ops=relu+\\\n  # between\n  sum:2 ic1ih7oc1kh1n\"a#b\" # ic2\n\
             \t-v5 ic1ih7\\\n oc1kh2 ic1ih7oc1kh3 #ic3\n\
             ic1\n\
             --match=.*kh3.*\n\
             ic1ih7oc1kh4n\"two words\"\n\
             ic1ih7oc1kh5 \\";
        let found: Vec<_> =
            problems(file).map(|(line, problem)| (line, problem.ok().map(|p| p.conv.kernel[0]))).collect();
        let expected =
            [(7, Some(1)), (8, Some(2)), (9, Some(3)), (10, None), (12, None), (12, None), (13, Some(5))];
        assert_eq!(found, expected);
        assert_eq!(problems("").count() + problems("#\n \\\n--mb=1").count(), 0);
    }

    #[test]
    fn a_problem_without_a_geometry_is_written_too() {
        let huge = Conv2d {
            groups: 0,
            kernel: [0, usize::MAX],
            dilation: [0, usize::MAX],
            ..Conv2d::new(usize::MAX, 0, 0).padding(usize::MAX)
        };
        for padding in [Padding::Valid, Padding::Same, Padding::SameLower, Padding::from(usize::MAX)] {
            assert!(huge.padding(padding).to_string().contains(&format!("dh-1dw{}", usize::MAX - 1)));
        }
        assert_eq!(Conv2d::new(3, 8, 3).to_string(), "mb1ic3ih0iw0oc8kh3kw3sh1sw1ph0pw0dh0dw0");
        let too_large = Conv2d::new(usize::MAX, 1, 1).input(2);
        assert!(too_large.geometry().unwrap_err().to_string().contains("does not fit the address space"));
        assert_eq!(too_large.to_string(), format!("mb1ic{}ih2iw2oc1kh1kw1sh1sw1ph0pw0dh0dw0", usize::MAX));
        assert_eq!(format!("{:>60}|", Conv2d::new(3, 8, 3)).len(), 61);
    }

    fn padding() -> impl Strategy<Value = Padding> {
        prop_oneof![
            Just(Padding::Valid),
            Just(Padding::Same),
            Just(Padding::SameLower),
            [0usize..9, 0..9, 0..9, 0..9].prop_map(|[top, bottom, left, right]| Padding::Explicit {
                top,
                bottom,
                left,
                right
            }),
        ]
    }

    prop_compose! {
        fn convs()(
            batch in 0usize..3, group_in in 1usize..3, group_out in 1usize..3, groups in 1usize..4,
            input in [1usize..12, 1..12], kernel in [1usize..5, 1..5], stride in [1usize..6, 1..6],
            dilation in [1usize..4, 1..4], padding in padding(),
        ) -> Conv2d {
            Conv2d { batch, groups, stride, dilation, padding, ..Conv2d::new(group_in * groups, group_out * groups, kernel) }
                .input(input)
        }
    }

    /// The law of [`NamedProblem`], for a problem with a geometry.
    fn comes_back(conv: Conv2d) {
        let geometry = conv.geometry().unwrap();
        let text = conv.to_string();
        let parsed: Conv2d = text.parse().unwrap();
        let back = parsed.geometry().unwrap();
        assert_eq!(parsed.to_string(), text);
        assert_eq!(back.output(), geometry.output(), "{text}");
        assert_eq!(Conv2d { padding: conv.padding, ..parsed }, conv, "{text}");
        for axis in 0..2 {
            let [before, after] = back.padding()[axis];
            assert_eq!(before, geometry.padding()[axis][0], "{text}");
            assert!(after <= geometry.padding()[axis][1], "{text}");
            // One pixel less would lose an output: it is the smallest.
            if after > 0 {
                let mut sides = back.padding();
                sides[axis][1] -= 1;
                let [[top, bottom], [left, right]] = sides;
                let less = parsed.padding(Padding::Explicit { top, bottom, left, right }).geometry();
                assert!(less.is_err() || less.is_ok_and(|less| less.output() != back.output()), "{text}");
            }
        }
        assert_eq!(back.forward(), geometry.forward());
        assert!(back.backward_data().take(9).eq(geometry.backward_data().take(9)));
    }

    proptest! {
        #[test]
        fn every_problem_with_a_geometry_comes_back_from_its_string(conv in convs()) {
            if let Ok(geometry) = conv.geometry() {
                comes_back(conv);
                let [src, weights] = [geometry.src_len(), geometry.weights_len()]
                    .map(|len| (0..len).map(|i| (i * i % 23) as i64 - 11).collect::<Vec<_>>());
                let back = conv.to_string().parse::<Conv2d>().unwrap().geometry().unwrap();
                let results = [geometry, back].map(|geometry| definition::forward(&geometry, &src, &weights));
                prop_assert_eq!(&results[0], &results[1]);
            } else {
                prop_assert!(!conv.to_string().contains("oh"));
            }
        }

        #[test]
        fn large_problems_come_back_too(
            base in convs(), log in [0u32..20, 0..20, 0..20, 0..62, 0..62, 0..60, 0..62, 0..62], bits in any::<usize>(),
        ) {
            let [batch, ih, iw, sh, sw, dh, top, right] = log.map(|log| (bits >> (63 - log)).max(1));
            let padding = Padding::Explicit { top, bottom: 0, left: 3, right };
            let large = Conv2d { batch, input: [ih, iw], stride: [sh, sw], dilation: [dh, 1], padding, ..base };
            for conv in [large, Conv2d { kernel: [1, base.kernel[1]], dilation: [usize::MAX, 1], ..large }] {
                if conv.geometry().is_ok() {
                     comes_back(conv);
                }
            }
        }

        #[test]
        fn a_named_problem_comes_back_from_its_string(conv in convs(), name in proptest::option::of(".*")) {
            if conv.geometry().is_ok() {
                let conv = conv.to_string().parse().unwrap();
                let problem = NamedProblem { name, conv };
                prop_assert_eq!(problem.to_string().parse::<NamedProblem>().unwrap(), problem);
            }
        }

        #[test]
        fn what_parses_is_written_the_same_way_again(text in "ic4oc4ih[1-9]kh[1-4](_?(g|mb|oh|sh|ph|dh|iw|kw|ow|sw|pw|dw)[0-9]){0,5}") {
            if let Ok(conv) = text.parse::<Conv2d>() && conv.geometry().is_ok() {
                prop_assert_eq!(conv.to_string().parse::<Conv2d>().unwrap(), conv);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*|([a-z]{1,2}[0-9]{0,21}[_\"n -]{0,1}){0,20}|(ic|oc|[iokspd][hw]|1|18446744073709551615){0,30}") {
            let _ = text.parse::<NamedProblem>();
            let _ = text.parse::<Conv2d>();
            prop_assert!(problems(&text).count() <= text.len());
        }
    }
}
