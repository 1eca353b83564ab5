//! Sizes as Kubernetes quantities (`10Mi`, `1500k`, `1.5Gi`), in bytes.

/// A text that isn't a size; its `Display` says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a size; write bytes, or a number with Ki, Mi, Gi, k, M or G, as `512Ki` or `10Mi`"
)]
pub struct InvalidSize(pub String);

/// Reads a quantity as a number of bytes; a fraction of a byte is refused.
pub fn parse(text: &str) -> Result<u64, InvalidSize> {
    let invalid = || InvalidSize(text.chars().take(40).collect());
    let text_trimmed = text.trim();
    let split = text_trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text_trimmed.len());
    let (number, suffix) = text_trimmed.split_at(split);
    let unit: u64 = match suffix {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        _ => return Err(invalid()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 || number.ends_with('.') {
        return Err(invalid());
    }
    let bytes = whole
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .ok_or_else(invalid)?;
    let part = match fraction {
        "" => 0,
        digits => {
            let scale = 10_u128.pow(u32::try_from(digits.len()).expect("at most nine digits"));
            let parts =
                u128::from(digits.parse::<u64>().map_err(|_| invalid())?) * u128::from(unit);
            if parts % scale != 0 {
                return Err(invalid());
            }
            u64::try_from(parts / scale).expect("less than one unit")
        }
    };
    bytes.checked_add(part).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_kubernetes_quantity() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1_024),
            ("10Mi", 10_485_760),
            ("512Ki", 524_288),
            ("1.5Gi", 1_610_612_736),
            ("100k", 100_000),
            ("2M", 2_000_000),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_number_of_bytes_is_refused() {
        for text in [
            "",
            "Mi",
            "10mi",
            "10MB",
            "-1",
            "1.",
            ".5Mi",
            "1.2.3Mi",
            "1.5",
            "0.3Ki",
            "100m",
            "1e3",
            "99999999999999999999",
            "18446744073709551615Ki",
            "10 Mi",
        ] {
            assert_eq!(parse(text), Err(InvalidSize(text.to_owned())), "{text}");
        }
    }
}
