//! Sizes with units, as people type them.

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no size: write bytes or a number with KiB, MiB or GiB, for example 512MiB")]
pub struct SizeError(String);

/// Reads `4096`, `64KiB`, `512MiB`, `2GiB` (also `K`, `M`, `G`; powers of 1024), in bytes.
///
/// # Errors
/// [`SizeError`] for anything else, for zero, and for what does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let error = || SizeError(text.to_owned());
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(error()),
    };
    let number: u64 = number.parse().map_err(|_| error())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in
            [("1", 1), ("4096B", 4096), ("64KiB", 64 << 10), ("512 MiB", 512 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "MiB", "-1", "1.5GiB", "1TB", "99999999999999999999", "18446744073709551615G"] {
            assert!(parse_size(text).unwrap_err().to_string().contains("512MiB"), "{text}");
        }
    }
}
