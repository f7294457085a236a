//! Chosen numbers moved to the front, in vector registers.

use pulp::Simd;

/// What is left free after the numbers that a function here writes: it writes whole vectors.
pub(super) const SLACK: usize = 16;

/// Writes which entries of a row are not zero, and these, to the front of `indices` and `values`,
/// and returns how many. Both must hold [`SLACK`] more than the row.
#[inline(always)]
pub(super) fn nonzeros<S: Simd>(row: &[f32], indices: &mut [u32], values: &mut [f32]) -> usize {
    let (mut count, start) = whole_vectors::nonzeros::<S>(row, indices, values);
    for (i, &value) in row.iter().enumerate().skip(start) {
        (indices[count], values[count]) = (i as u32, value);
        count += usize::from(value != 0.0);
    }
    count
}

/// Writes the keys from `low` to `high` to the front of `found`, which must hold [`SLACK`] more than
/// there are keys. Returns how many are above `high`, and how many it wrote. A key is a number and
/// `mask`.
#[inline(always)]
pub(super) fn between<S: Simd>(
    numbers: &[u32],
    mask: u32,
    (low, high): (u32, u32),
    found: &mut [u32],
) -> (usize, usize) {
    let (mut above, mut count, start) = whole_vectors::between::<S>(numbers, mask, (low, high), found);
    for number in &numbers[start..] {
        let key = number & mask;
        above += usize::from(key > high);
        found[count] = key;
        count += usize::from((low..=high).contains(&key));
    }
    (above, count)
}

#[cfg(not(target_arch = "x86_64"))]
mod whole_vectors {
    use pulp::Simd;

    pub(super) fn nonzeros<S: Simd>(_: &[f32], _: &mut [u32], _: &mut [f32]) -> (usize, usize) {
        (0, 0)
    }

    pub(super) fn between<S: Simd>(_: &[u32], _: u32, _: (u32, u32), _: &mut [u32]) -> (usize, usize, usize) {
        (0, 0, 0)
    }
}

#[cfg(target_arch = "x86_64")]
mod whole_vectors {
    use std::arch::x86_64::{__m256, __m256i, __m512, __m512i, _CMP_NEQ_UQ};

    use pulp::x86::{V3, V4};
    use pulp::{Simd, cast};

    /// For every choice of eight lanes their numbers, those of the chosen ones first.
    const CHOSEN: [[u32; 8]; 256] = {
        let mut table = [[0; 8]; 256];
        let mut choice = 0;
        while choice < 256 {
            let (mut lane, mut count) = (0, 0);
            while lane < 8 {
                if choice >> lane & 1 == 1 {
                    table[choice][count] = lane as u32;
                    count += 1;
                }
                lane += 1;
            }
            choice += 1;
        }
        table
    };

    /// As the function outside for whole vectors of the row. Also returns how many entries they are.
    #[inline(always)]
    pub(super) fn nonzeros<S: Simd>(row: &[f32], indices: &mut [u32], values: &mut [f32]) -> (usize, usize) {
        let mut count = 0;
        if S::F32_LANES == 16
            && let Some(v4) = V4::try_new()
        {
            let v = v4.avx512f;
            let first: __m512i = cast([0u32, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
            for (part, row) in row.as_chunks::<16>().0.iter().enumerate() {
                let numbers: __m512 = cast(*row);
                let chosen = v._mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(numbers, v._mm512_setzero_ps());
                let places = v._mm512_add_epi32(first, v._mm512_set1_epi32(16 * part as i32));
                indices[count..][..16]
                    .copy_from_slice(&cast::<_, [u32; 16]>(v._mm512_maskz_compress_epi32(chosen, places)));
                values[count..][..16]
                    .copy_from_slice(&cast::<_, [f32; 16]>(v._mm512_maskz_compress_ps(chosen, numbers)));
                count += chosen.count_ones() as usize;
            }
            return (count, row.len() / 16 * 16);
        }
        if S::F32_LANES == 8
            && let Some(v3) = V3::try_new()
        {
            for (part, row) in row.as_chunks::<8>().0.iter().enumerate() {
                let numbers: __m256 = cast(*row);
                let different = v3.avx._mm256_cmp_ps::<_CMP_NEQ_UQ>(numbers, v3.avx._mm256_setzero_ps());
                let chosen = v3.avx._mm256_movemask_ps(different) as usize & 255;
                let lanes: __m256i = cast(CHOSEN[chosen]);
                let places = v3.avx2._mm256_add_epi32(lanes, v3.avx._mm256_set1_epi32(8 * part as i32));
                indices[count..][..8].copy_from_slice(&cast::<_, [u32; 8]>(places));
                let packed = v3.avx2._mm256_permutevar8x32_ps(numbers, lanes);
                values[count..][..8].copy_from_slice(&cast::<_, [f32; 8]>(packed));
                count += chosen.count_ones() as usize;
            }
            return (count, row.len() / 8 * 8);
        }
        (0, 0)
    }

    /// As the function outside for whole vectors of numbers. Also returns how many numbers they are.
    #[inline(always)]
    pub(super) fn between<S: Simd>(
        numbers: &[u32],
        mask: u32,
        (low, high): (u32, u32),
        found: &mut [u32],
    ) -> (usize, usize, usize) {
        let (mut above, mut count) = (0, 0);
        if S::F32_LANES == 16
            && let Some(v4) = V4::try_new()
        {
            let v = v4.avx512f;
            let [mask, low, high] = [mask, low, high].map(|x| v._mm512_set1_epi32(x as i32));
            for chunk in numbers.as_chunks::<16>().0 {
                let keys = v._mm512_and_si512(cast(*chunk), mask);
                let over = v._mm512_cmpgt_epu32_mask(keys, high);
                let chosen = v._mm512_cmpge_epu32_mask(keys, low) & !over;
                found[count..][..16]
                    .copy_from_slice(&cast::<_, [u32; 16]>(v._mm512_maskz_compress_epi32(chosen, keys)));
                above += over.count_ones() as usize;
                count += chosen.count_ones() as usize;
            }
            return (above, count, numbers.len() / 16 * 16);
        }
        if S::F32_LANES == 8
            && let Some(v3) = V3::try_new()
        {
            // These processors compare signed numbers only.
            let sign = v3.avx._mm256_set1_epi32(i32::MIN);
            let splat = |x: u32| v3.avx._mm256_set1_epi32(x as i32);
            let (low, high) = (splat(low ^ 1 << 31), splat(high ^ 1 << 31));
            let bits = |x: __m256i| v3.avx._mm256_movemask_ps(cast(x)) as usize & 255;
            for chunk in numbers.as_chunks::<8>().0 {
                let keys = v3.avx2._mm256_and_si256(cast(*chunk), splat(mask));
                let signed = v3.avx2._mm256_xor_si256(keys, sign);
                let over = bits(v3.avx2._mm256_cmpgt_epi32(signed, high));
                let chosen = !(over | bits(v3.avx2._mm256_cmpgt_epi32(low, signed))) & 255;
                let packed = v3.avx2._mm256_permutevar8x32_epi32(keys, cast(CHOSEN[chosen]));
                found[count..][..8].copy_from_slice(&cast::<_, [u32; 8]>(packed));
                above += over.count_ones() as usize;
                count += chosen.count_ones() as usize;
            }
            return (above, count, numbers.len() / 8 * 8);
        }
        (0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Simd, WithSimd};

    use super::{SLACK, between, nonzeros};
    use crate::device::cpu::tests::kinds;

    struct Nonzeros<'a>(&'a [f32]);

    impl WithSimd for Nonzeros<'_> {
        type Output = Vec<(u32, u32)>;

        fn with_simd<S: Simd>(self, _: S) -> Self::Output {
            let (mut indices, mut values) = (vec![0; self.0.len() + SLACK], vec![0.0; self.0.len() + SLACK]);
            let count = nonzeros::<S>(self.0, &mut indices, &mut values);
            indices.into_iter().zip(values).take(count).map(|(i, v)| (i, v.to_bits())).collect()
        }
    }

    struct Between<'a>(&'a [u32], u32, (u32, u32));

    impl WithSimd for Between<'_> {
        type Output = (usize, Vec<u32>);

        fn with_simd<S: Simd>(self, _: S) -> Self::Output {
            let mut found = vec![0; self.0.len() + SLACK];
            let (above, count) = between::<S>(self.0, self.1, self.2, &mut found);
            found.truncate(count);
            (above, found)
        }
    }

    #[test]
    fn every_kind_of_vector_finds_the_nonzeros() {
        let row: Vec<f32> = (0..77)
            .map(|i| match i % 7 {
                0 | 3 => i as f32 - 20.0,
                1 => -0.0,
                5 => f32::NAN,
                _ => 0.0,
            })
            .collect();
        for kind in kinds() {
            for len in [0, 1, 7, 8, 16, 33, 64, 77] {
                let want: Vec<_> = (0..len).filter(|&i| row[i] != 0.0).map(|i| (i as u32, row[i].to_bits())).collect();
                assert_eq!(kind.dispatch(Nonzeros(&row[..len])), want, "{kind:?} {len}");
            }
        }
    }

    #[test]
    fn every_kind_of_vector_finds_what_lies_between() {
        let numbers: Vec<u32> = (0..77u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
        for kind in kinds() {
            for (low, high) in [(0, u32::MAX), (1 << 30, 3 << 30), (5, 5), (0, 0), (numbers[40], numbers[40])] {
                for mask in [u32::MAX, u32::MAX >> 1] {
                    for len in [0, 1, 9, 16, 77] {
                        let keys = || numbers[..len].iter().map(|n| n & mask);
                        let want = keys().filter(|key| (low..=high).contains(key)).collect();
                        let above = keys().filter(|&key| key > high).count();
                        let got = kind.dispatch(Between(&numbers[..len], mask, (low, high)));
                        assert_eq!(got, (above, want), "{kind:?} {len} {low} {high}");
                    }
                }
            }
        }
    }
}
