//! Where an example puts what it makes.

use std::path::Path;

/// Makes the folder if it is not there.
///
/// # Errors
/// A sentence that names it.
pub fn make(path: &Path) -> Result<(), String> {
    std::fs::create_dir_all(path)
        .map_err(|error| format!("cannot make the folder {}: {error}", path.display()))
}
