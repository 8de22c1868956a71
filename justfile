# Every recipe is one command; the work is in scripts/, so nothing here needs `just`.

# Everything that CI checks. `just check fmt clippy` runs only those steps.
check *STEPS:
    scripts/check {{STEPS}}

# Format the sources in place.
fmt:
    cargo fmt --all

# All tests, with the same optimisation as a release build.
test *ARGS:
    cargo test --workspace {{ARGS}}

# No intrinsic may be left as a function call.
no-outlined:
    scripts/check no-outlined

# Hot loops keep their accumulators in registers.
asm:
    scripts/check asm

# Licences, sources and version wildcards of the dependencies.
deny:
    scripts/check deny

# Criterion over every algorithm; those whose name contains an argument.
bench *ARGS:
    cargo bench -p convolve-benches --bench conv -- {{ARGS}}

# The table of GFLOP/s and % of the FMA peak.
report *ARGS:
    cargo bench -p convolve-benches --bench report -- {{ARGS}}

# Ours beside oneDNN (if scripts/onednn can fetch it) and explicit im2col.
peers *ARGS:
    CONVOLVE_ONEDNN="$(scripts/onednn)" cargo bench -p convolve-benches --bench peers -- {{ARGS}}

# Pooling, fully connected layers and activations beside oneDNN and a copy.
layers *ARGS:
    CONVOLVE_ONEDNN="$(scripts/onednn)" cargo bench -p convolve-benches --bench layers -- {{ARGS}}

# Every algorithm against the definition, over problem files or strings.
verify *ARGS:
    cargo run --release -p convolve-cli -- verify {{ARGS}}

# ONNX's own cases; fetches them once.
onnx-conformance:
    scripts/onnx-conformance

# Each fuzz target for SECONDS; needs nightly and cargo-fuzz.
fuzz SECONDS="60":
    scripts/fuzz {{SECONDS}}
