//! How the value of a key is read from text, checked against its rule, and written back.
//!
//! Every source (file, environment, flag) hands over text, so that a value means the same wherever it stands.
//! Reading is total: a value or `None`; the rule says in words what was expected.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// The bounds of a key, for the check and in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A whole number; `unit` is empty for a count.
    Number {
        /// Lowest value.
        min: u64,
        /// Highest value.
        max: u64,
        /// "ms", "secs", "hours", or empty.
        unit: &'static str,
    },
    /// A size in bytes, also written as `64MiB`.
    Bytes {
        /// Lowest value.
        min: u64,
        /// Highest value.
        max: u64,
        /// The value is a multiple of this.
        multiple_of: u64,
    },
    /// `true` or `false`.
    Bool,
    /// One of a few words.
    OneOf(&'static [&'static str]),
    /// A name as the protocol allows it for topics, groups, brokers and clusters.
    Name,
    /// What the type of the key reads, said in words.
    Form(&'static str),
}

impl Rule {
    /// The unit of a value, empty where there is none.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Number { unit, .. } => unit,
            Self::Bytes { .. } => "bytes",
            _ => "",
        }
    }

    fn allows(&self, number: u64) -> bool {
        match *self {
            Self::Number { min, max, .. } => (min..=max).contains(&number),
            Self::Bytes {
                min,
                max,
                multiple_of,
            } => (min..=max).contains(&number) && number.is_multiple_of(multiple_of),
            _ => true,
        }
    }
}

/// What is expected, as the end of the sentence "expected ...".
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Number { min, max, unit } => {
                write!(f, "a whole number from {min} to {max}")?;
                if unit.is_empty() {
                    Ok(())
                } else {
                    write!(f, " ({unit})")
                }
            }
            Self::Bytes {
                min,
                max,
                multiple_of,
            } => {
                write!(f, "a size from {} to {}", size(min), size(max))?;
                if multiple_of == 1 {
                    Ok(())
                } else {
                    write!(f, ", a multiple of {}", size(multiple_of))
                }
            }
            Self::Bool => f.write_str("true or false"),
            Self::OneOf([words @ .., last]) => write!(f, "{} or {last}", words.join(", ")),
            Self::OneOf([]) => f.write_str("nothing"),
            Self::Name => {
                f.write_str("a name of at most 127 letters, digits, '_', '-', '%' or '|'")
            }
            Self::Form(words) => f.write_str(words),
        }
    }
}

/// A whole number without unit.
pub(super) const fn count(min: u64, max: u64) -> Rule {
    Rule::Number { min, max, unit: "" }
}

/// Milliseconds.
pub(super) const fn ms(min: u64, max: u64) -> Rule {
    Rule::Number {
        min,
        max,
        unit: "ms",
    }
}

/// Seconds.
pub(super) const fn secs(min: u64, max: u64) -> Rule {
    Rule::Number {
        min,
        max,
        unit: "secs",
    }
}

/// Hours.
pub(super) const fn hours(min: u64, max: u64) -> Rule {
    Rule::Number {
        min,
        max,
        unit: "hours",
    }
}

/// Bytes, any number of them.
pub(super) const fn bytes(min: u64, max: u64) -> Rule {
    Rule::Bytes {
        min,
        max,
        multiple_of: 1,
    }
}

/// Bytes in whole blocks of a disk.
pub(super) const fn blocks(min: u64, max: u64) -> Rule {
    Rule::Bytes {
        min,
        max,
        multiple_of: 4096,
    }
}

/// A type that a key can have.
pub(super) trait Value: Sized {
    /// Reads a value that keeps to the rule.
    fn read(text: &str, rule: &Rule) -> Option<Self>;
    /// Writes the value so that `read` gives it back.
    fn write(&self, rule: &Rule) -> String;
}

const UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

/// A number of bytes in the largest unit that leaves no rest.
pub(super) fn size(bytes: u64) -> String {
    match UNITS
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
    {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

fn read_digits(text: &str) -> Option<u64> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn read_size(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let factor = if unit.is_empty() || unit.eq_ignore_ascii_case("b") {
        1
    } else {
        UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))?
            .1
    };
    read_digits(number)?.checked_mul(factor)
}

fn read_number(text: &str, rule: &Rule) -> Option<u64> {
    let text = text.trim();
    let number = if matches!(rule, Rule::Bytes { .. }) {
        read_size(text)
    } else {
        read_digits(text)
    }?;
    rule.allows(number).then_some(number)
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Value for $number {
            fn read(text: &str, rule: &Rule) -> Option<Self> {
                Self::try_from(read_number(text, rule)?).ok()
            }

            fn write(&self, rule: &Rule) -> String {
                match rule {
                    Rule::Bytes { .. } => size(*self as u64),
                    _ => self.to_string(),
                }
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, usize);

impl Value for bool {
    fn read(text: &str, _: &Rule) -> Option<Self> {
        text.trim().to_ascii_lowercase().parse().ok()
    }

    fn write(&self, _: &Rule) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn read(text: &str, rule: &Rule) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-%|".contains(c);
        let fits = match rule {
            Rule::Name => (1..=127).contains(&text.len()) && text.chars().all(allowed),
            _ => true,
        };
        fits.then(|| text.to_owned())
    }

    fn write(&self, _: &Rule) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    fn read(text: &str, _: &Rule) -> Option<Self> {
        (!text.is_empty() && !text.contains('\0')).then(|| Self::from(text))
    }

    fn write(&self, _: &Rule) -> String {
        self.to_string_lossy().into_owned()
    }
}

impl Value for IpAddr {
    fn read(text: &str, _: &Rule) -> Option<Self> {
        text.trim().parse().ok()
    }

    fn write(&self, _: &Rule) -> String {
        self.to_string()
    }
}

/// Empty text is `None`.
impl Value for Option<IpAddr> {
    fn read(text: &str, rule: &Rule) -> Option<Self> {
        match text.trim() {
            "" => Some(None),
            // Nobody can connect to "any address".
            text => IpAddr::read(text, rule)
                .filter(|ip| !ip.is_unspecified())
                .map(Some),
        }
    }

    fn write(&self, rule: &Rule) -> String {
        self.map(|ip| ip.write(rule)).unwrap_or_default()
    }
}

/// Whether a send is answered before or after its message is on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flush {
    /// After: SEND_OK means durable.
    #[default]
    Sync,
    /// Before: a crash may lose what was answered during the last `flush_interval_ms`.
    Async,
}

impl Value for Flush {
    fn read(text: &str, _: &Rule) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "sync" | "sync_flush" => Some(Self::Sync),
            "async" | "async_flush" => Some(Self::Async),
            _ => None,
        }
    }

    fn write(&self, _: &Rule) -> String {
        match self {
            Self::Sync => "sync".to_owned(),
            Self::Async => "async".to_owned(),
        }
    }
}

/// How much the broker says on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// What stops the broker or loses a request.
    Error,
    /// And what an operator should look at.
    Warn,
    /// And what happens once in a while.
    #[default]
    Info,
    /// And what happens on every connection.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    pub(super) const WORDS: [&'static str; 5] = ["error", "warn", "info", "debug", "trace"];

    /// The level as the word that is written in the file.
    pub fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

impl Value for LogLevel {
    fn read(text: &str, _: &Rule) -> Option<Self> {
        let levels = [
            Self::Error,
            Self::Warn,
            Self::Info,
            Self::Debug,
            Self::Trace,
        ];
        levels
            .into_iter()
            .find(|level| level.as_str().eq_ignore_ascii_case(text.trim()))
    }

    fn write(&self, _: &Rule) -> String {
        self.as_str().to_owned()
    }
}

/// CPU numbers in the order in which shards take them, written as `0-3,6`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cores(pub Vec<usize>);

impl Cores {
    /// More CPUs than Linux can have.
    const BOUND: usize = 8192;
}

impl Value for Cores {
    fn read(text: &str, _: &Rule) -> Option<Self> {
        let mut cores: Vec<usize> = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (
                first.trim().parse::<usize>().ok()?,
                last.trim().parse::<usize>().ok()?,
            );
            if first > last || last >= Self::BOUND {
                return None;
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return None;
                }
                cores.push(core);
            }
        }
        Some(Self(cores))
    }

    fn write(&self, _: &Rule) -> String {
        self.0
            .iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join(",")
    }
}

/// `host:port` addresses separated by `;`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses(pub Vec<String>);

impl Value for Addresses {
    fn read(text: &str, _: &Rule) -> Option<Self> {
        let parts = text
            .split([';', ','])
            .map(str::trim)
            .filter(|part| !part.is_empty());
        parts
            .map(|part| {
                let (host, port) = part.rsplit_once(':')?;
                let port = port.parse::<u16>().ok()?;
                let host_fits =
                    !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
                (host_fits && port > 0).then(|| part.to_owned())
            })
            .collect::<Option<Vec<_>>>()
            .map(Self)
    }

    fn write(&self, _: &Rule) -> String {
        self.0.join(";")
    }
}

/// The delays of the levels 1, 2, ... in ms, written as `1s 5s 1m 2h 1d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayLevels(pub Vec<u64>);

impl DelayLevels {
    const UNITS: [(char, u64); 4] = [
        ('d', 86_400_000),
        ('h', 3_600_000),
        ('m', 60_000),
        ('s', 1_000),
    ];
    const MOST: usize = 64;
    const LONGEST_MS: u64 = 365 * 86_400_000;

    fn read_one(text: &str) -> Option<u64> {
        let unit = text.chars().next_back()?;
        let factor = Self::UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let delay_ms = read_digits(text.strip_suffix(unit)?)?.checked_mul(factor)?;
        (1..=Self::LONGEST_MS)
            .contains(&delay_ms)
            .then_some(delay_ms)
    }
}

impl Value for DelayLevels {
    fn read(text: &str, _: &Rule) -> Option<Self> {
        let levels = text
            .split_whitespace()
            .map(Self::read_one)
            .collect::<Option<Vec<_>>>()?;
        (1..=Self::MOST)
            .contains(&levels.len())
            .then_some(Self(levels))
    }

    fn write(&self, _: &Rule) -> String {
        let level = |delay_ms: &u64| {
            let unit = Self::UNITS
                .iter()
                .find(|(_, unit)| delay_ms.is_multiple_of(*unit));
            // Whole seconds are all that can be read.
            unit.map_or_else(String::new, |(name, unit)| {
                format!("{}{name}", delay_ms / unit)
            })
        };
        self.0.iter().map(level).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_have_units() {
        let rule = bytes(0, u64::MAX);
        for (text, expected) in [
            ("4096", Some(4096)),
            ("64MiB", Some(64 << 20)),
            ("64 mib", Some(64 << 20)),
            ("1_000B", Some(1000)),
            ("2TiB", Some(2 << 40)),
            ("64MB", None),
            ("-1", None),
            ("MiB", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(u64::read(text, &rule), expected, "{text}");
        }
        assert_eq!(u64::read("4097", &blocks(4096, 1 << 30)), None);
        assert_eq!(size(1536 << 20), "1536MiB");
    }

    #[test]
    fn numbers_keep_their_bounds() {
        assert_eq!(u16::read("65536", &count(0, 1 << 20)), None);
        assert_eq!(u16::read("10", &count(11, 20)), None);
        assert_eq!(u32::read("+5", &count(0, 9)), None);
        assert_eq!(u32::read("1_0", &count(0, 19)), Some(10));
    }

    #[test]
    fn core_lists_keep_their_order() {
        let rule = Rule::Form("");
        assert_eq!(
            Cores::read("6, 0-3", &rule),
            Some(Cores(vec![6, 0, 1, 2, 3]))
        );
        assert_eq!(Cores::read("", &rule), Some(Cores(vec![])));
        for wrong in ["3-0", "a", "0,0", "0-99999", "1-"] {
            assert_eq!(Cores::read(wrong, &rule), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_name_a_port() {
        let rule = Rule::Form("");
        assert_eq!(
            Addresses::read("ns1:9876; 10.0.0.2:9876;", &rule),
            Some(Addresses(vec![
                "ns1:9876".to_owned(),
                "10.0.0.2:9876".to_owned()
            ]))
        );
        for wrong in ["ns1", "ns1:0", ":9876", "http://ns1:9876", "ns1:port"] {
            assert_eq!(Addresses::read(wrong, &rule), None, "{wrong}");
        }
    }

    #[test]
    fn delay_levels_have_units() {
        let rule = Rule::Form("");
        assert_eq!(
            DelayLevels::read("1s 2m 90s", &rule),
            Some(DelayLevels(vec![1_000, 120_000, 90_000]))
        );
        assert_eq!(
            DelayLevels(vec![1_000, 120_000, 90_000]).write(&rule),
            "1s 2m 90s"
        );
        for wrong in ["", "1", "1x", "0s", "s", "400d", "1\u{20ac}"] {
            assert_eq!(DelayLevels::read(wrong, &rule), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC*") {
            let rule = bytes(1, 1 << 40);
            let _ = u64::read(&text, &rule);
            let _ = u16::read(&text, &count(0, 99));
            let _ = Cores::read(&text, &rule);
            let _ = Addresses::read(&text, &rule);
            let _ = DelayLevels::read(&text, &rule);
            let _ = Option::<IpAddr>::read(&text, &rule);
        }

        #[test]
        fn what_is_written_is_read(number in any::<u64>(), cores in proptest::collection::btree_set(0usize..8192, 0..9)) {
            let rule = bytes(0, u64::MAX);
            prop_assert_eq!(u64::read(&number.write(&rule), &rule), Some(number));
            let cores = Cores(cores.into_iter().collect());
            prop_assert_eq!(Cores::read(&cores.write(&rule), &rule), Some(cores));
        }
    }
}
