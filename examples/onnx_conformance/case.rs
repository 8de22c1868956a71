//! A case as ONNX stores it: a folder with `model.onnx`, which is one node, and with the tensors that go in and must come out.

use crate::{Result, proto};
use prost::Message;
use std::borrow::Cow;
use std::path::Path;

/// One node, its inputs and the outputs that it must have.
pub(crate) struct Case {
    pub(crate) operator: String,
    pub(crate) attributes: Vec<proto::Attribute>,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<Tensor>,
}

pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
}

pub(crate) enum Values {
    F32(Vec<f32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    /// What they are; no operator here takes them.
    Other(&'static str),
}

impl Case {
    /// Reads a folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("model.onnx");
        let model: proto::Model = decode(&path)?;
        let [node] = <[proto::Node; 1]>::try_from(model.graph.unwrap_or_default().nodes)
            .map_err(|nodes| format!("{}: it has {} nodes, a case has one", path.display(), nodes.len()))?;
        let tensors = |prefix: &str, names: &[String]| -> Result<Vec<Tensor>> {
            let there = names.iter().filter(|name| !name.is_empty()).count();
            let data = folder.join("test_data_set_0");
            (0..there).map(|i| Tensor::read(&data.join(format!("{prefix}_{i}.pb")))).collect()
        };
        Ok(Self {
            inputs: tensors("input", &node.inputs)?,
            outputs: tensors("output", &node.outputs)?,
            operator: node.operator,
            attributes: node.attributes,
        })
    }

    fn attribute(&self, name: &str) -> Option<&proto::Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// An attribute that nobody reads would make a case mean something else.
    pub(crate) fn knows_only(&self, names: &[&str]) -> Result<()> {
        match self.attributes.iter().find(|attribute| !names.contains(&attribute.name.as_str())) {
            Some(other) => {
                Err(format!("{} has an unknown attribute, `{}`", self.operator, other.name).into())
            }
            None => Ok(()),
        }
    }

    /// A whole number, or the default.
    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.int)
    }

    /// A word, or nothing.
    pub(crate) fn word(&self, name: &str) -> &str {
        self.attribute(name).and_then(|attribute| str::from_utf8(&attribute.string).ok()).unwrap_or("")
    }

    /// `expected` numbers, none of them negative, if the attribute is there.
    pub(crate) fn sizes(&self, name: &str, expected: usize) -> Result<Option<Vec<usize>>> {
        let Some(attribute) = self.attribute(name) else { return Ok(None) };
        let sizes: Vec<_> = attribute.ints.iter().filter_map(|&int| usize::try_from(int).ok()).collect();
        if sizes.len() != expected || attribute.ints.len() != expected {
            let ints = &attribute.ints;
            return Err(format!("{name} = {ints:?}: these should be {expected} sizes").into());
        }
        Ok(Some(sizes))
    }
}

impl Tensor {
    fn read(path: &Path) -> Result<Self> {
        Self::new(decode(path)?).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    pub(crate) fn new(tensor: proto::Tensor) -> Result<Self> {
        let shape: Vec<usize> =
            tensor.shape.iter().map(|&size| usize::try_from(size)).collect::<std::result::Result<_, _>>()?;
        let values = match tensor.element {
            1 if tensor.raw.is_empty() => Values::F32(tensor.floats),
            1 => {
                Values::F32(tensor.raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
            }
            7 if tensor.raw.is_empty() => Values::I64(tensor.ints),
            7 => {
                Values::I64(tensor.raw.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect())
            }
            2 => Values::U8(tensor.raw),
            3 => Values::Other("i8"),
            6 => Values::Other("i32"),
            8 => Values::Other("string"),
            10 => Values::Other("f16"),
            11 => Values::Other("f64"),
            _ => Values::Other("other"),
        };
        let (expected, got) = (shape.iter().product::<usize>(), values.len());
        match got {
            Some(got) if got != expected => {
                Err(format!("{got} elements, but {shape:?} has {expected}").into())
            }
            _ => Ok(Self { shape, values }),
        }
    }

    pub(crate) fn f32(&self) -> Result<&[f32]> {
        match &self.values {
            Values::F32(values) => Ok(values),
            _ => Err("a tensor is not of f32".into()),
        }
    }

    /// As f32, which holds every u8.
    pub(crate) fn exact_f32(&self) -> Result<Cow<'_, [f32]>> {
        match &self.values {
            Values::U8(values) => Ok(values.iter().copied().map(f32::from).collect()),
            _ => self.f32().map(Cow::Borrowed),
        }
    }

    pub(crate) fn i64(&self) -> Result<&[i64]> {
        match &self.values {
            Values::I64(values) => Ok(values),
            _ => Err("a tensor is not of i64".into()),
        }
    }
}

impl Values {
    fn len(&self) -> Option<usize> {
        match self {
            Self::F32(values) => Some(values.len()),
            Self::I64(values) => Some(values.len()),
            Self::U8(values) => Some(values.len()),
            Self::Other(_) => None,
        }
    }
}

fn decode<M: Message + Default>(path: &Path) -> Result<M> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    M::decode(&*bytes).map_err(|error| format!("{}: {error}", path.display()).into())
}
