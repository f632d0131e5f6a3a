//! The ONNX Runtime library: where it is, and loading it once.

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ort::environment::Environment;

use crate::OpenError;

const LIBRARY: &str = "libonnxruntime.so";

/// Finds the ONNX Runtime library: `explicit`, else `ORT_DYLIB_PATH`, else beside the model or in the folder `runtime`
/// next to the model's folder, else in the system's library folders.
///
/// # Errors
/// [`OpenError::NoRuntime`] with all places. A path that was given and is wrong is not replaced by another.
pub fn find(explicit: Option<&Path>, model: &Path) -> Result<PathBuf, OpenError> {
    let from_env = || env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = explicit.map(Path::to_path_buf).or_else(from_env) {
        return if path.is_file() { Ok(path) } else { Err(OpenError::NoRuntime { tried: vec![path] }) };
    }
    let beside = model.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    let mut folders: Vec<PathBuf> = Vec::new();
    if let Some(folder) = beside {
        folders.push(folder.to_path_buf());
        folders.push(folder.join("../runtime"));
    }
    let machine = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
    folders.extend(["/usr/local/lib".into(), machine.into(), "/usr/lib".into()]);
    let found = folders.iter().find_map(|folder| library_in(folder));
    found.ok_or_else(|| OpenError::NoRuntime { tried: folders.iter().map(|f| f.join(LIBRARY)).collect() })
}

/// `libonnxruntime.so` in a folder, or the highest of `libonnxruntime.so.*`.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let plain = folder.join(LIBRARY);
    if plain.is_file() {
        return Some(plain);
    }
    let entries = std::fs::read_dir(folder).ok()?;
    let versions = entries.filter_map(|e| e.ok()).filter(|e| {
        e.file_name().to_str().and_then(|n| n.strip_prefix(LIBRARY)).is_some_and(|rest| rest.starts_with('.'))
    });
    versions.map(|e| e.path()).filter(|p| p.is_file()).max()
}

/// The engine allows one environment in a process; it stays until the process ends.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// Loads the library, once for a process: a later call gets what is loaded already, whatever its path.
pub(crate) fn load(path: &Path) -> Result<Environment, OpenError> {
    let mut slot = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*slot {
        return Ok(environment.clone());
    }
    let bad = |why: String| OpenError::BadRuntime { path: path.into(), why };
    // The engine resolves relative paths against the executable; ours are against the working directory.
    let absolute = std::path::absolute(path).map_err(|e| bad(e.to_string()))?;
    let builder = ort::init_from(&absolute).map_err(|e| bad(e.to_string()))?;
    let environment = builder.with_telemetry(false).build().map_err(|e| bad(e.to_string()))?;
    Ok(slot.insert(environment).clone())
}
