//! Writes the problem files of `convolve_testkit::problems` to `testkit/problems`, or to the directory named.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let dir = std::env::args_os().nth(1).map_or(convolve_testkit::problems::directory(), PathBuf::from);
    std::fs::create_dir_all(&dir)?;
    for (name, text) in convolve_testkit::problems::files() {
        let path = dir.join(name);
        println!("{}: {} lines", path.display(), text.lines().filter(|line| !line.starts_with('#')).count());
        std::fs::write(path, text)?;
    }
    Ok(())
}
