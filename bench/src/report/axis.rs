//! From values to places, and where the marks of an axis stand.

/// A linear or logarithmic way from values to places.
pub struct Axis {
    from: f64,
    to: f64,
    logarithmic: bool,
    start: f64,
    end: f64,
}

impl Axis {
    /// Values `from..to`, in equal steps from place `start` to place `end`.
    pub fn linear((from, to): (f64, f64), start: f64, end: f64) -> Self {
        Self {
            from,
            to,
            logarithmic: false,
            start,
            end,
        }
    }

    /// The same with equal steps for equal factors.
    pub fn logarithmic(bounds: (f64, f64), start: f64, end: f64) -> Self {
        Self {
            logarithmic: true,
            ..Self::linear(bounds, start, end)
        }
    }

    /// Where a value is; what is out of bounds is at the edge.
    pub fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| match self.logarithmic {
            true => value.ln(),
            false => value,
        };
        let value = value.clamp(self.from, self.to);
        let part = (scale(value) - scale(self.from)) / (scale(self.to) - scale(self.from));
        self.start + part * (self.end - self.start)
    }

    /// One, two and five of each power of ten, or only the powers where those are many.
    pub fn marks(&self) -> Vec<f64> {
        let all = steps(self.from, self.to);
        if all.len() <= 10 {
            return all;
        }
        let is_power = |value: &f64| (value.log10() - value.log10().round()).abs() < 1e-6;
        all.into_iter().filter(is_power).collect()
    }
}

/// The numbers 1, 2 and 5 times a power of ten from `from` to `to`.
fn steps(from: f64, to: f64) -> Vec<f64> {
    let mut found = Vec::new();
    let mut exponent = from.log10().floor() as i32;
    while 10f64.powi(exponent) <= to * 1.0001 {
        for factor in [1.0, 2.0, 5.0] {
            let value = factor * 10f64.powi(exponent);
            if value >= from * 0.9999 && value <= to * 1.0001 {
                found.push(value);
            }
        }
        exponent += 1;
    }
    found
}

/// Bounds of a logarithmic axis around all values, at marks; a decade where there are no values.
pub fn around(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, 0.0f64), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if high <= 0.0 {
        return (0.1, 1.0);
    }
    let all = steps(low / 10.0, high * 10.0);
    let from = all.iter().rev().find(|mark| **mark <= low);
    let to = all.iter().find(|mark| **mark >= high);
    let (from, to) = (*from.unwrap_or(&low), *to.unwrap_or(&high));
    // Close together, noise would look like a mountain.
    (from, to.max(from * 5.0))
}

/// The distance between about so many marks of a linear axis that ends at `to`.
pub fn step(to: f64, marks: f64) -> f64 {
    let least = to / marks;
    let power = 10f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= least);
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_between_round_marks() {
        assert_eq!(around([0.031, 4.2].into_iter()), (0.02, 5.0));
        assert_eq!(around([3.0, 3.1].into_iter()), (2.0, 10.0));
        assert_eq!(around(std::iter::empty()), (0.1, 1.0));
        let axis = Axis::logarithmic((0.1, 10.0), 100.0, 300.0);
        assert_eq!(axis.marks(), [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]);
        assert!((axis.place(1.0) - 200.0).abs() < 1e-9);
        assert_eq!((axis.place(0.0), axis.place(99.0)), (100.0, 300.0));
        assert_eq!(Axis::logarithmic((0.001, 100.0), 0.0, 1.0).marks().len(), 6);
    }

    #[test]
    fn steps_are_round() {
        assert_eq!(step(161_000.0, 5.0), 50_000.0);
        assert_eq!(step(9.0, 10.0), 1.0);
        assert_eq!(step(3600.0, 8.0), 500.0);
        assert_eq!(step(0.9, 5.0), 0.2);
    }
}
