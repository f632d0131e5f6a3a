//! Where the model and the inference runtime are when nobody says: in the cache that set-up fills.

use std::path::{Path, PathBuf};

use aits_service::ServiceError;

/// The model that set-up makes; preferred when there are several.
const MODEL: &str = "nanodet.onnx";
const RUNTIME: &str = "libonnxruntime.so";
const HINT: &str = "run `cargo xtask setup` to get one";

/// `$AITS_CACHE`, else `$XDG_CACHE_HOME/aits`, else `~/.cache/aits`.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    let from_env = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from_env("AITS_CACHE")
        .or_else(|| from_env("XDG_CACHE_HOME").map(|dir| dir.join("aits")))
        .or_else(|| from_env("HOME").map(|dir| dir.join(".cache/aits")))
}

/// The model: the given one if there is one, else from the cache.
pub(crate) fn model(given: Option<&Path>, cache: Option<&Path>) -> Result<PathBuf, ServiceError> {
    if let Some(path) = given {
        return existing(path, "the model", "--model");
    }
    let Some(dir) = cache.map(|cache| cache.join("models")) else { return Err(no_home("model", "--model")) };
    let mut models: Vec<PathBuf> = std::fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .collect();
    models.sort_by_key(|path| (!path.ends_with(MODEL), path.clone()));
    models.into_iter().next().ok_or_else(|| {
        ServiceError::config(format!(
            "there is no model in {}: {HINT}, or give one with --model",
            dir.display()
        ))
    })
}

/// The inference runtime: the given one if there is one, else from the cache.
pub(crate) fn runtime(given: Option<&Path>, cache: Option<&Path>) -> Result<PathBuf, ServiceError> {
    if let Some(path) = given {
        return existing(path, "the inference runtime", "--runtime");
    }
    let Some(path) = cache.map(|cache| cache.join("runtime").join(RUNTIME)) else {
        return Err(no_home("inference runtime", "--runtime"));
    };
    if path.exists() {
        return Ok(path);
    }
    Err(ServiceError::config(format!(
        "there is no inference runtime at {}: {HINT}, or give one with --runtime",
        path.display()
    )))
}

fn existing(path: &Path, what: &str, flag: &str) -> Result<PathBuf, ServiceError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(std::path::absolute(path)?),
        Ok(_) => {
            Err(ServiceError::config(format!("{what} {} is no file; give one with {flag}", path.display())))
        }
        Err(error) => Err(ServiceError::config(format!(
            "{what} {} cannot be read ({error}); give another with {flag}, or {HINT}",
            path.display()
        ))),
    }
}

fn no_home(what: &str, flag: &str) -> ServiceError {
    ServiceError::config(format!("neither AITS_CACHE nor HOME says where the {what} is; give it with {flag}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_searched_and_the_default_model_preferred() {
        let cache = tempfile::tempdir().unwrap();
        let missing = model(None, Some(cache.path())).unwrap_err();
        assert!(missing.message().contains("cargo xtask setup"), "{missing}");
        std::fs::create_dir(cache.path().join("models")).unwrap();
        for name in ["another.onnx", "notes.txt", MODEL] {
            std::fs::write(cache.path().join("models").join(name), "").unwrap();
        }
        assert!(model(None, Some(cache.path())).unwrap().ends_with(MODEL));
        let given = cache.path().join("models/another.onnx");
        assert_eq!(model(Some(&given), None).unwrap(), given);
        assert!(model(Some(cache.path()), None).unwrap_err().message().contains("is no file"));
    }
}
