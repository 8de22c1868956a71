//! The named suites: the layers of well-known networks, as benchdnn strings with names.
//!
//! Sizes are those of the papers and of torchvision's models (ResNet-50 with the stride in the 3x3 convolution). Batch 1 unless the
//! name says otherwise.

use convolve::NamedProblem;

/// The names that [`suite`] knows.
pub const SUITES: [&str; 5] = ["resnet50", "vgg16", "mobilenet", "course", "all"];

/// Every distinct convolution of ResNet-50 (He et al. 2015).
pub const RESNET50: &str = r#"
mb1ic3ih224oc64oh112kh7sh2ph3n"resnet50:conv1"
mb1ic64ih56oc64oh56kh1n"resnet50:res2a_1x1_reduce"
mb1ic64ih56oc64oh56kh3ph1n"resnet50:res2_3x3"
mb1ic64ih56oc256oh56kh1n"resnet50:res2_1x1_expand"
mb1ic256ih56oc64oh56kh1n"resnet50:res2_1x1_reduce"
mb1ic256ih56oc128oh56kh1n"resnet50:res3a_1x1_reduce"
mb1ic128ih56oc128oh28kh3sh2ph1n"resnet50:res3a_3x3_s2"
mb1ic256ih56oc512oh28kh1sh2ph0n"resnet50:res3a_shortcut_s2"
mb1ic128ih28oc512oh28kh1n"resnet50:res3_1x1_expand"
mb1ic512ih28oc128oh28kh1n"resnet50:res3_1x1_reduce"
mb1ic128ih28oc128oh28kh3ph1n"resnet50:res3_3x3"
mb1ic512ih28oc256oh28kh1n"resnet50:res4a_1x1_reduce"
mb1ic256ih28oc256oh14kh3sh2ph1n"resnet50:res4a_3x3_s2"
mb1ic512ih28oc1024oh14kh1sh2ph0n"resnet50:res4a_shortcut_s2"
mb1ic256ih14oc1024oh14kh1n"resnet50:res4_1x1_expand"
mb1ic1024ih14oc256oh14kh1n"resnet50:res4_1x1_reduce"
mb1ic256ih14oc256oh14kh3ph1n"resnet50:res4_3x3"
mb1ic1024ih14oc512oh14kh1n"resnet50:res5a_1x1_reduce"
mb1ic512ih14oc512oh7kh3sh2ph1n"resnet50:res5a_3x3_s2"
mb1ic1024ih14oc2048oh7kh1sh2ph0n"resnet50:res5a_shortcut_s2"
mb1ic512ih7oc2048oh7kh1n"resnet50:res5_1x1_expand"
mb1ic2048ih7oc512oh7kh1n"resnet50:res5_1x1_reduce"
mb1ic512ih7oc512oh7kh3ph1n"resnet50:res5_3x3"
"#;

/// Every distinct convolution of VGG-16 (Simonyan, Zisserman 2014).
pub const VGG16: &str = r#"
mb1ic3ih224oc64oh224kh3ph1n"vgg16:conv1_1"
mb1ic64ih224oc64oh224kh3ph1n"vgg16:conv1_2"
mb1ic64ih112oc128oh112kh3ph1n"vgg16:conv2_1"
mb1ic128ih112oc128oh112kh3ph1n"vgg16:conv2_2"
mb1ic128ih56oc256oh56kh3ph1n"vgg16:conv3_1"
mb1ic256ih56oc256oh56kh3ph1n"vgg16:conv3_2"
mb1ic256ih28oc512oh28kh3ph1n"vgg16:conv4_1"
mb1ic512ih28oc512oh28kh3ph1n"vgg16:conv4_2"
mb1ic512ih14oc512oh14kh3ph1n"vgg16:conv5_1"
"#;

/// Depthwise and pointwise layers of MobileNet v1 (Howard et al. 2017) and v2 (Sandler et al. 2018).
pub const MOBILENET: &str = r#"
mb1ic3ih224oc32oh112kh3sh2ph1n"mobilenet_v1:conv1"
g32mb1ic32ih112oc32oh112kh3ph1n"mobilenet_v1:dw2"
mb1ic32ih112oc64oh112kh1n"mobilenet_v1:pw2"
g64mb1ic64ih112oc64oh56kh3sh2ph1n"mobilenet_v1:dw3_s2"
mb1ic64ih56oc128oh56kh1n"mobilenet_v1:pw3"
g128mb1ic128ih56oc128oh56kh3ph1n"mobilenet_v1:dw4"
mb1ic128ih56oc128oh56kh1n"mobilenet_v1:pw4"
g128mb1ic128ih56oc128oh28kh3sh2ph1n"mobilenet_v1:dw5_s2"
mb1ic128ih28oc256oh28kh1n"mobilenet_v1:pw5"
g256mb1ic256ih28oc256oh28kh3ph1n"mobilenet_v1:dw6"
mb1ic256ih28oc256oh28kh1n"mobilenet_v1:pw6"
g256mb1ic256ih28oc256oh14kh3sh2ph1n"mobilenet_v1:dw7_s2"
mb1ic256ih14oc512oh14kh1n"mobilenet_v1:pw7"
g512mb1ic512ih14oc512oh14kh3ph1n"mobilenet_v1:dw8"
mb1ic512ih14oc512oh14kh1n"mobilenet_v1:pw8"
g512mb1ic512ih14oc512oh7kh3sh2ph1n"mobilenet_v1:dw13_s2"
mb1ic512ih7oc1024oh7kh1n"mobilenet_v1:pw13"
g1024mb1ic1024ih7oc1024oh7kh3ph1n"mobilenet_v1:dw14"
mb1ic1024ih7oc1024oh7kh1n"mobilenet_v1:pw14"
mb1ic32ih112oc16oh112kh1n"mobilenet_v2:b1_project"
mb1ic16ih112oc96oh112kh1n"mobilenet_v2:b2_expand"
g96mb1ic96ih112oc96oh56kh3sh2ph1n"mobilenet_v2:b2_dw_s2"
mb1ic96ih56oc24oh56kh1n"mobilenet_v2:b2_project"
mb1ic24ih56oc144oh56kh1n"mobilenet_v2:b3_expand"
g144mb1ic144ih56oc144oh56kh3ph1n"mobilenet_v2:b3_dw"
mb1ic144ih56oc24oh56kh1n"mobilenet_v2:b3_project"
g144mb1ic144ih56oc144oh28kh3sh2ph1n"mobilenet_v2:b4_dw_s2"
mb1ic144ih28oc32oh28kh1n"mobilenet_v2:b4_project"
mb1ic32ih28oc192oh28kh1n"mobilenet_v2:b5_expand"
g192mb1ic192ih28oc192oh28kh3ph1n"mobilenet_v2:b5_dw"
mb1ic192ih28oc32oh28kh1n"mobilenet_v2:b5_project"
g192mb1ic192ih28oc192oh14kh3sh2ph1n"mobilenet_v2:b7_dw_s2"
mb1ic192ih14oc64oh14kh1n"mobilenet_v2:b7_project"
mb1ic64ih14oc384oh14kh1n"mobilenet_v2:b8_expand"
g384mb1ic384ih14oc384oh14kh3ph1n"mobilenet_v2:b8_dw"
mb1ic384ih14oc64oh14kh1n"mobilenet_v2:b8_project"
mb1ic384ih14oc96oh14kh1n"mobilenet_v2:b11_project"
mb1ic96ih14oc576oh14kh1n"mobilenet_v2:b12_expand"
g576mb1ic576ih14oc576oh14kh3ph1n"mobilenet_v2:b12_dw"
mb1ic576ih14oc96oh14kh1n"mobilenet_v2:b12_project"
g576mb1ic576ih14oc576oh7kh3sh2ph1n"mobilenet_v2:b14_dw_s2"
mb1ic576ih7oc160oh7kh1n"mobilenet_v2:b14_project"
mb1ic160ih7oc960oh7kh1n"mobilenet_v2:b15_expand"
g960mb1ic960ih7oc960oh7kh3ph1n"mobilenet_v2:b15_dw"
mb1ic960ih7oc160oh7kh1n"mobilenet_v2:b15_project"
mb1ic960ih7oc320oh7kh1n"mobilenet_v2:b17_project"
mb1ic320ih7oc1280oh7kh1n"mobilenet_v2:head"
"#;

/// What a course on convolutional networks computes: the lecture's toys, LeNet-5 (LeCun et al. 1998), small networks for CIFAR-10.
pub const COURSE: &str = r#"
mb1ic1ih6oc1oh4kh3n"course:vertical_edge_6x6"
mb1ic1ih7oc1oh3kh3sh2ph0n"course:stride_2_7x7"
mb1ic3ih6oc2oh4kh3n"course:two_filters_6x6x3"
mb1ic3ih39oc10oh37kh3n"course:tiny_39x39x3"
mb1ic10ih37oc20oh17kh5sh2ph0n"course:tiny_37x37x10"
mb1ic20ih17oc40oh7kh5sh2ph0n"course:tiny_17x17x20"
mb1ic192ih28oc32oh28kh5ph2n"course:inception_5x5"
mb1ic192ih28oc16oh28kh1n"course:bottleneck_1x1"
mb10ic4ih5iw7oc8oh4ow5kh3kw3sh2sw2ph2pw2n"course:assignment_forward"
mb64ic1ih28oc6oh28kh5ph2n"course:lenet_conv1"
mb64ic6ih14oc16oh10kh5n"course:lenet_conv2"
mb64ic16ih5oc120oh1kh5n"course:lenet_conv3"
mb32ic3ih64oc8oh64kh4ph1n"course:signs_conv1_4x4"
mb32ic8ih8oc16oh8kh2ph0n"course:signs_conv2_2x2"
mb64ic3ih32oc16oh32kh3ph1n"course:cifar_conv1"
mb64ic16ih32oc32oh32kh3ph1n"course:cifar_conv2"
mb64ic32ih16oc64oh16kh3ph1n"course:cifar_conv3"
mb64ic64ih8oc64oh8kh3ph1n"course:cifar_conv4"
"#;

/// One of each kind, across networks: what comparisons with other libraries use.
pub const ALL: &str = r#"
mb1ic3ih224oc64kh7sh2ph3n"rn50_conv1_7x7s2"
mb1ic64ih56oc64kh1n"rn50_1x1_64_64"
mb1ic64ih56oc64kh3ph1n"rn50_3x3_64"
mb1ic64ih56oc256kh1n"rn50_1x1_64_256"
mb1ic256ih56oc64kh1n"rn50_1x1_256_64"
mb1ic128ih56oc128kh3sh2ph1n"rn50_3x3s2_128"
mb1ic128ih28oc128kh3ph1n"rn50_3x3_128"
mb1ic256ih56oc512kh1sh2n"rn50_1x1s2_256_512"
mb1ic256ih14oc256kh3ph1n"rn50_3x3_256"
mb1ic1024ih14oc256kh1n"rn50_1x1_1024_256"
mb1ic512ih7oc512kh3ph1n"rn50_3x3_512"
mb1ic512ih7oc2048kh1n"rn50_1x1_512_2048"
mb1ic3ih224oc64kh3ph1n"vgg_1_1"
mb1ic64ih224oc64kh3ph1n"vgg_1_2"
mb1ic128ih112oc128kh3ph1n"vgg_2_2"
mb1ic256ih56oc256kh3ph1n"vgg_3_2"
mb1ic512ih28oc512kh3ph1n"vgg_4_2"
mb1ic512ih14oc512kh3ph1n"vgg_5"
g32mb1ic32ih112oc32kh3ph1n"dw3x3_32_112"
g96mb1ic96ih112oc96kh3sh2ph1n"dw3x3s2_96_112"
g144mb1ic144ih56oc144kh3ph1n"dw3x3_144_56"
g384mb1ic384ih14oc384kh3ph1n"dw3x3_384_14"
g240mb1ic240ih28oc240kh5ph2n"dw5x5_240_28"
g96mb1ic96ih56oc96kh7ph3n"dw7x7_96_56"
mb1ic3ih227oc96kh11sh4n"alexnet_11x11s4"
mb1ic48ih27oc128kh5ph2n"5x5_48_128_27"
mb1ic192ih17iw17oc192kh1kw7ph0pw3n"inc_1x7_192_17"
g32mb1ic128ih28oc128kh3ph1n"resnext_g32_128_28"
mb1ic256ih28oc256kh3ph2dh1n"dil2_3x3_256_28"
mb1ic32ih256oc32kh3ph1n"unet_3x3_32_256"
mb1ic64iw16000oc64kw9pw4n"conv1d_k9_64_16000"
mb64ic1ih28oc6kh5ph2n"lenet_5x5_1_6"
mb64ic6ih14oc16kh5n"lenet_5x5_6_16"
mb64ic16ih32oc16kh3ph1n"cifar_3x3_16_32"
mb16ic64ih56oc64kh3ph1n"b16_rn50_3x3_64"
mb16ic256ih14oc256kh3ph1n"b16_rn50_3x3_256"
mb16ic256ih56oc64kh1n"b16_rn50_1x1_256_64"
g144mb16ic144ih56oc144kh3ph1n"b16_dw3x3_144_56"
"#;

/// The problems of a suite; none for an unknown name.
///
/// # Panics
/// Never: a test parses every line.
pub fn suite(name: &str) -> Option<Vec<NamedProblem>> {
    let text = match name {
        "resnet50" => RESNET50,
        "vgg16" => VGG16,
        "mobilenet" => MOBILENET,
        "course" => COURSE,
        "all" => ALL,
        _ => return None,
    };
    Some(convolve::problems(text).map(|(_, problem)| problem.expect("suites parse")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_named_problem_with_a_geometry() {
        let mut names = Vec::new();
        for suite in SUITES.map(|name| self::suite(name).unwrap()) {
            for problem in suite {
                problem.conv.geometry().unwrap();
                names.push(problem.name.unwrap());
            }
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "a name is used twice");
        assert!(suite("alexnet").is_none());
    }

    #[test]
    fn the_suites_have_the_known_sizes() {
        let count = |name| suite(name).unwrap().len();
        assert_eq!(count("all"), 38);
        let gmacs = |name| {
            suite(name).unwrap().iter().map(|p| p.conv.geometry().unwrap().macs()).sum::<u64>() as f64 / 1e9
        };
        // VGG-16 has 15.3 GMAC in its convolutions; conv3_2, conv4_2 and conv5_1 occur twice, twice and three times.
        let again = |name: &str| {
            let suite = suite("vgg16").unwrap();
            suite.iter().find(|p| p.name.as_deref() == Some(name)).unwrap().conv.geometry().unwrap().macs()
                as f64
                / 1e9
        };
        let all =
            gmacs("vgg16") + again("vgg16:conv3_2") + again("vgg16:conv4_2") + 2.0 * again("vgg16:conv5_1");
        assert!((15.3..15.4).contains(&all), "{all}");
    }
}
