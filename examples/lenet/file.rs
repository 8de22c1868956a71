//! Weights in a file, as `safetensors`: the names and the order are PyTorch's.

use super::Result;
use convolve_examples::network::{Parameters, Shape};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
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

pub(crate) fn save(parameters: &Parameters, path: &Path) -> Result<()> {
    let bytes = |tensor: &Vec<f32>| tensor.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let bytes: Vec<_> = parameters.tensors.iter().map(bytes).collect();
    let mut views = Vec::new();
    for ((name, shape), bytes) in names(parameters).into_iter().zip(&parameters.shapes).zip(&bytes) {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?));
    }
    safetensors::serialize_to_file(views, None, path)?;
    Ok(())
}

pub(crate) fn load(path: &Path, shape: &Shape) -> Result<Parameters> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
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
