//! Weights in a file, as `safetensors`: the names and the order are PyTorch's; the metadata have the name of the digits.

use super::Result;
use convolve_examples::network::{Parameters, Shape};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::path::Path;

/// Of the tensors of parameters: conv1.weight, conv1.bias, .., fc1.weight, ..
fn names(parameters: &Parameters) -> Vec<String> {
    let [mut convs, mut dense] = [0; 2];
    let weights = parameters.shapes.iter().step_by(2);
    let layers = weights.map(|shape| {
        let (kind, count) = if shape.len() == 4 { ("conv", &mut convs) } else { ("fc", &mut dense) };
        *count += 1;
        format!("{kind}{count}")
    });
    layers.flat_map(|layer| ["weight", "bias"].map(|tensor| format!("{layer}.{tensor}"))).collect()
}

/// FNV-1a over all bits.
pub(crate) fn fingerprint(parameters: &Parameters) -> u64 {
    let bytes = parameters.tensors.iter().flatten().flat_map(|x| x.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Of the metadata: which digits the weights were trained on.
const DATA: &str = "data";

pub(crate) fn save(parameters: &Parameters, data: &str, path: &Path) -> Result<()> {
    let bytes = |tensor: &Vec<f32>| tensor.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let bytes: Vec<_> = parameters.tensors.iter().map(bytes).collect();
    let mut views = Vec::new();
    for ((name, shape), bytes) in names(parameters).into_iter().zip(&parameters.shapes).zip(&bytes) {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?));
    }
    let metadata = HashMap::from([(DATA.to_string(), data.to_string())]);
    let bytes = safetensors::serialize(views, Some(metadata))?;
    Ok(std::fs::write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))?)
}

/// Weights for these digits; a file that does not say which is taken.
pub(crate) fn load(path: &Path, shape: &Shape, data: &str) -> Result<Parameters> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let no_file = |error| format!("{} is no safetensors file: {error}", path.display());
    let file = SafeTensors::deserialize(&bytes).map_err(no_file)?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(no_file)?;
    let theirs = metadata.metadata().as_ref().and_then(|metadata| metadata.get(DATA));
    if let Some(theirs) = theirs.filter(|theirs| *theirs != data) {
        let path = path.display();
        let sentence =
            format!("{path} holds weights for the digits `{theirs}`, not `{data}`: give --data {theirs}");
        return Err(sentence.into());
    }
    let mut parameters = Parameters::zeros(shape.shapes()?);
    let names = names(&parameters);
    for ((name, shape), tensor) in names.into_iter().zip(&parameters.shapes).zip(&mut parameters.tensors) {
        let view = file.tensor(&name).map_err(|error| format!("{}: {error}", path.display()))?;
        if view.shape() != shape || view.dtype() != Dtype::F32 {
            return Err(format!("{}: {name} is not {shape:?} of f32", path.display()).into());
        }
        let (floats, _) = view.data().as_chunks::<4>();
        *tensor = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    }
    Ok(parameters)
}
