//! Where an axis has ticks, and what stands at them.

use crate::settings::grouped;

/// Multiples of 1, 2 or 5 times a power of ten from `low` to `high`, `most` or fewer.
pub(super) fn linear(low: f64, high: f64, most: usize) -> Vec<f64> {
    let rough = (high - low) / most.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return vec![low];
    }
    let smallest = rough.log10().floor() as i32;
    let steps = (smallest..=smallest + 2).flat_map(|power| [1.0, 2.0, 5.0].map(|mantissa| (mantissa, power)));
    let multiples = |(mantissa, power): (f64, i32)| -> Vec<f64> {
        let step = mantissa * 10f64.powi(power);
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        (first..=last).map(|n| scaled(n as f64 * mantissa, power)).collect()
    };
    steps.map(multiples).find(|ticks| ticks.len() <= most.max(1)).unwrap_or_default()
}

/// `v` times a power of ten: the number nearest to that decimal, which a product with 0.1 is not.
fn scaled(v: f64, power: i32) -> f64 {
    if power < 0 { v / 10f64.powi(-power) } else { v * 10f64.powi(power) }
}

/// Ticks of a logarithmic axis from `low` to `high`, both above 0: 1, 2 and 5 times the powers of
/// ten, or every power, or every second one and so on; the first of these with `most` or fewer. An
/// axis too short for three of them has linear ones.
pub(super) fn log(low: f64, high: f64, most: usize) -> Vec<f64> {
    let (first, last) = ((low.log10() - 1e-9).floor() as i32, (high.log10() + 1e-9).ceil() as i32);
    let inside = |v: &f64| *v >= low * (1.0 - 1e-9) && *v <= high * (1.0 + 1e-9);
    let fine = (first..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|mantissa| scaled(mantissa, power)));
    let fine: Vec<f64> = fine.filter(inside).collect();
    if fine.len() < 3 {
        return linear(low, high, most);
    }
    if fine.len() <= most {
        return fine;
    }
    let every = |n: i32| -> Vec<f64> {
        (first..=last).filter(|power| power.rem_euclid(n) == 0).map(|power| scaled(1.0, power)).filter(inside).collect()
    };
    let all = (1..=last - first).map(every);
    all.into_iter().find(|ticks| ticks.len() <= most.max(1)).unwrap_or_default()
}

/// The texts of ticks in rising order: all with the same decimals on a linear axis.
pub(super) fn labels(ticks: &[f64], log: bool) -> Vec<String> {
    let size = ticks.iter().fold(0f64, |size, v| size.max(v.abs()));
    if log || !(1e-3..1e6).contains(&size) {
        return ticks.iter().map(|&v| label(v)).collect();
    }
    let decimals = ticks.iter().map(|v| v.to_string().split_once('.').map_or(0, |(_, after)| after.len())).max();
    ticks.iter().map(|v| plain(*v, decimals.unwrap_or(0).min(9))).collect()
}

/// A number alone, in the shortest form.
pub(super) fn label(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return v.to_string();
    }
    if (1e-3..1e6).contains(&v.abs()) {
        let digits = (5 - v.abs().log10().floor() as i32).max(0) as usize;
        return trimmed(plain(v, digits));
    }
    let exponent = v.abs().log10().floor() as i32;
    let mantissa = trimmed(plain(v / 10f64.powi(exponent), 5));
    let power: String = exponent.to_string().chars().map(raised).collect();
    if mantissa == "1" { format!("10{power}") } else { format!("{mantissa}×10{power}") }
}

fn plain(v: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", v.abs());
    let (whole, after) = text.split_once('.').unwrap_or((&text, ""));
    let whole = whole.parse().map_or_else(|_| whole.into(), grouped);
    let zero = text.chars().all(|c| c == '0' || c == '.');
    let sign = if v < 0.0 && !zero { "−" } else { "" };
    if after.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{after}") }
}

fn trimmed(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

fn raised(c: char) -> char {
    match c {
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '0' | '4'..='9' => char::from_u32(0x2070 + u32::from(c) - u32::from('0')).unwrap_or(c),
        _ => '⁻',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_multiples_of_1_2_or_5() {
        let cases: [(f64, f64, usize, &[f64]); 7] = [
            (0.0, 10.0, 6, &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
            (-0.04, 1.04, 6, &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
            (0.0, 10.0, 11, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]),
            (-0.04, 0.31, 5, &[0.0, 0.1, 0.2, 0.3]),
            (2.87, 7.02, 4, &[4.0, 6.0]),
            (-3e6, 2.2e7, 6, &[0.0, 5e6, 1e7, 1.5e7, 2e7]),
            (1.0, 1.0, 5, &[1.0]),
        ];
        for (low, high, most, want) in cases {
            assert_eq!(linear(low, high, most), want, "{low} to {high}");
        }
    }

    #[test]
    fn log_ticks_are_1_2_5_or_powers_or_linear() {
        let cases: [(f64, f64, usize, &[f64]); 6] = [
            (0.8, 60.0, 9, &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0]),
            (0.008, 1.1, 4, &[0.01, 0.1, 1.0]),
            (1e-6, 1e3, 5, &[1e-6, 1e-4, 0.01, 1.0, 100.0]),
            (1e-6, 1e3, 4, &[1e-6, 1e-3, 1.0, 1e3]),
            (3.0, 6.5, 5, &[3.0, 4.0, 5.0, 6.0]),
            (0.001, 0.01, 8, &[0.001, 0.002, 0.005, 0.01]),
        ];
        for (low, high, most, want) in cases {
            assert_eq!(log(low, high, most), want, "{low} to {high}");
        }
    }

    #[test]
    fn labels_are_as_a_reader_would_write_them() {
        let texts = |ticks: &[f64], log| labels(ticks, log).join(" ");
        assert_eq!(texts(&[0.0, 0.5, 1.0], false), "0.0 0.5 1.0");
        assert_eq!(texts(&[-5000.0, 0.0, 5000.0], false), "−5,000 0 5,000");
        assert_eq!(texts(&[0.0, 2e6, 1.2e7], false), "0 2×10⁶ 1.2×10⁷");
        assert_eq!(texts(&[1e-5, 2e-4, 0.05, 1.0, 5000.0, 1e6], true), "10⁻⁵ 2×10⁻⁴ 0.05 1 5,000 10⁶");
    }
}
