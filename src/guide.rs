//! A course week on convolutional networks: from the first filter to backpropagation, in the lecture's letters, every line running.
//!
//! Read the pages in order; each has the formula as the lecture writes it, the same in this library's words, and snippets that run. Paste one into
//! `fn main() -> Result<(), convolve::Error> { ..; Ok(()) }` of a program that depends on `convolve` (those of the last page need the crate of the tests as
//! well), or run those of a page in a clone, as `cargo test -p convolve --doc p02_edge_detection`, which compiles for some minutes the first time.
//! Whoever reads only one page finds the letters below.
//!
//! | page | heading of the lecture |
//! |---|---|
//! | [`p01_computer_vision`] | computer vision: three problems, and why not a dense network on pixels |
//! | [`p02_edge_detection`] | edge detection: convolution as an operation |
//! | [`p03_more_edges`] | more edge detection: Sobel, Scharr, and learning the nine numbers |
//! | [`p04_padding`] | padding: valid and same |
//! | [`p05_stride`] | strided convolutions |
//! | [`p06_volumes`] | convolutions over volumes, many filters |
//! | [`p07_one_layer`] | one layer of a convolutional network |
//! | [`p08_pooling`] | pooling layers |
//! | [`p09_a_network`] | a complete network: CONV, POOL, FC |
//! | [`p10_why_convolutions`] | why convolutions: counted parameters and connections |
//! | [`p11_backward_convolution`] | backpropagation through a convolution: three formulas, derived |
//! | [`p12_backward_pooling`] | backpropagation through pooling |
//! | [`p13_gradient_check`] | a numerical gradient check |
//! | [`p14_notebook`] | the course's notebook: its cells and the values that it prints |
//!
//! # The letters
//!
//! | lecture | meaning | here |
//! |---|---|---|
//! | m | examples | [`Conv2d::batch`](crate::Conv2d::batch) |
//! | n_H_prev, n_W_prev, n_C_prev | height, width, channels of the input | `input`, `in_channels` |
//! | n_H, n_W, n_C | of the output | [`Geometry::output`](crate::Geometry::output), `out_channels` |
//! | f, p, s | filter size, padding, stride | `kernel`, `padding`, `stride` |
//! | A_prev (m, n_H_prev, n_W_prev, n_C_prev) | input | `src` in [`Layout::Nhwc`](crate::Layout::Nhwc) |
//! | W (f, f, n_C_prev, n_C) | filters | `weights` in [`WeightLayout::Hwio`](crate::WeightLayout::Hwio) |
//! | b (1, 1, 1, n_C) | bias | [`Epilogue::bias`](crate::Epilogue::bias) |
//! | Z = W * A_prev + b | before the activation | `dst` |
//! | A = g(Z) | after it | `dst` with [`Epilogue::relu`](crate::Epilogue::relu) |
//! | dA_prev, dW, db, dZ | gradients | `diff_src`, `diff_weights`, `diff_bias`, `diff_dst` |
//!
//! In formulas h, w and c are row, column and channel of an output, i and j those of a tap of the filter, k is a channel of the input; n, where it is an index,
//! is the example. (The notebook calls that one i.)

/// Declares a page from its file, and the pictures below it (scripts/guide-pictures), which are part of the page: rustdoc copies no files.
macro_rules! pages {
    ($($page:ident = $file:literal $(, $picture:literal)*;)*) => {
        $(
            #[doc = include_str!($file)]
            $(#[doc = include_str!($picture)])*
            pub mod $page {}
        )*
    };
}

pages! {
    p01_computer_vision = "guide/01-computer-vision.md", "../docs/tasks.svg";
    p02_edge_detection = "guide/02-edge-detection.md", "../docs/edges.svg";
    p03_more_edges = "guide/03-more-edges.md";
    p04_padding = "guide/04-padding.md";
    p05_stride = "guide/05-stride.md";
    p06_volumes = "guide/06-volumes.md";
    p07_one_layer = "guide/07-one-layer.md";
    p08_pooling = "guide/08-pooling.md";
    p09_a_network = "guide/09-a-network.md", "../docs/lenet.svg", "../docs/filters.svg";
    p10_why_convolutions = "guide/10-why-convolutions.md";
    p11_backward_convolution = "guide/11-backward-convolution.md";
    p12_backward_pooling = "guide/12-backward-pooling.md";
    p13_gradient_check = "guide/13-gradient-check.md";
    p14_notebook = "guide/14-notebook.md";
}
