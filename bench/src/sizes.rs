//! The sizes of bodies: one, a range, or several with weights.

use std::str::FromStr;

use crate::random::Random;

/// The largest body that is sent.
pub const MAX_BODY_BYTES: usize = 64 << 20;

/// A distribution of sizes, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    from: usize,
    to: usize,
    weight: u64,
}

impl Sizes {
    /// Always this size.
    pub fn fixed(bytes: usize) -> Self {
        Self {
            parts: vec![Part {
                from: bytes,
                to: bytes,
                weight: 1,
            }],
        }
    }

    /// The one size, if there is but one.
    pub fn single(&self) -> Option<usize> {
        match self.parts[..] {
            [Part { from, to, .. }] if from == to => Some(from),
            _ => None,
        }
    }

    /// The largest size.
    pub fn max(&self) -> usize {
        self.parts.iter().map(|part| part.to).max().unwrap_or(0)
    }

    /// The smallest size.
    pub fn min(&self) -> usize {
        self.parts.iter().map(|part| part.from).min().unwrap_or(0)
    }

    /// The same, but none smaller than this.
    pub fn at_least(&self, bytes: usize) -> Self {
        let raise = |part: &Part| Part {
            from: part.from.max(bytes),
            to: part.to.max(bytes),
            ..*part
        };
        Self {
            parts: self.parts.iter().map(raise).collect(),
        }
    }

    /// One size of the distribution.
    pub fn pick(&self, random: &mut Random) -> usize {
        let mut at = random.below(self.parts.iter().map(|part| part.weight).sum());
        for part in &self.parts {
            if at < part.weight {
                return part.from + random.below((part.to - part.from + 1) as u64) as usize;
            }
            at -= part.weight;
        }
        0
    }
}

/// `1024`, `1KiB`, `100-2000` (each as likely), or `128:9,4KiB:1` (with weights).
impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for part in text.split(',') {
            let (range, weight) = part.split_once(':').unwrap_or((part, "1"));
            let weight = weight
                .trim()
                .parse::<u32>()
                .map_err(|_| format!("`{weight}` is not a weight: a whole number is"))?;
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let (from, to) = (bytes(from)?, bytes(to)?);
            if from > to {
                return Err(format!("`{range}` goes down: write the smaller size first"));
            }
            if to > MAX_BODY_BYTES {
                return Err(format!("`{range}` is above 64 MiB"));
            }
            if weight > 0 {
                parts.push(Part {
                    from,
                    to,
                    weight: weight.into(),
                });
            }
        }
        if parts.is_empty() {
            return Err("no size has a weight above 0".to_owned());
        }
        Ok(Self { parts })
    }
}

/// A number of bytes: `4096`, `4KiB`, `1MiB`, `1GiB`; `k`, `m` and `g` mean the same.
pub fn bytes(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        unit => return Err(format!("`{unit}` is no unit: KiB, MiB and GiB are")),
    };
    digits
        .trim()
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("`{text}` is not a number of bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read() {
        assert_eq!("1024".parse(), Ok(Sizes::fixed(1024)));
        assert_eq!("1KiB".parse(), Ok(Sizes::fixed(1024)));
        assert_eq!("100-2000".parse::<Sizes>().unwrap().max(), 2000);
        assert_eq!("128:9, 4k:1".parse::<Sizes>().unwrap().max(), 4096);
        assert_eq!("128:9,4k:0".parse::<Sizes>().unwrap().single(), Some(128));
        for wrong in ["", "x", "1:x", "2-1", "1:0", "1TiB", "1GiB", "-1"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn weights_are_kept() {
        let sizes: Sizes = "10:3,20-21:1".parse().unwrap();
        let mut random = Random::new(5);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..40_000 {
            *counts.entry(sizes.pick(&mut random)).or_insert(0) += 1;
        }
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [10, 20, 21]);
        assert!((29_000..31_000).contains(&counts[&10]), "{counts:?}");
        assert!((4_500..5_500).contains(&counts[&20]), "{counts:?}");
    }
}
