//! Transposes in vector registers, for kernels that put rows into lanes.

use pulp::Simd;

/// Writes the first `rows` rows and `columns` columns of `from` as columns and rows of `to`. Rows of
/// each are as far apart as its stride says.
#[inline(always)]
pub(super) fn transpose<S: Simd>(
    (from, from_stride): (&[f32], usize),
    (to, to_stride): (&mut [f32], usize),
    (rows, columns): (usize, usize),
) {
    let (full_rows, full_columns) = whole_tiles::<S>((from, from_stride), (to, to_stride), (rows, columns));
    for r in 0..rows {
        let first = if r < full_rows { full_columns } else { 0 };
        for (c, &value) in from[r * from_stride..][..columns].iter().enumerate().skip(first) {
            to[c * to_stride + r] = value;
        }
    }
}

/// The same for as many rows and columns as whole tiles cover, which it returns.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn whole_tiles<S: Simd>(
    (from, from_stride): (&[f32], usize),
    (to, to_stride): (&mut [f32], usize),
    (rows, columns): (usize, usize),
) -> (usize, usize) {
    use pulp::x86::{V3, V4};
    let tile = S::F32_LANES;
    let (rows, columns) = (rows / tile * tile, columns / tile * tile);
    for r in (0..rows).step_by(tile) {
        for c in (0..columns).step_by(tile) {
            let (from, to) = (&from[r * from_stride + c..], &mut to[c * to_stride + r..]);
            match tile {
                16 => match V4::try_new() {
                    Some(v4) => x86::tile16(v4, from, from_stride, to, to_stride),
                    None => return (0, 0),
                },
                8 => match V3::try_new() {
                    Some(v3) => x86::tile8(v3, from, from_stride, to, to_stride),
                    None => return (0, 0),
                },
                _ => return (0, 0),
            }
        }
    }
    (rows, columns)
}

#[cfg(not(target_arch = "x86_64"))]
fn whole_tiles<S: Simd>(_: (&[f32], usize), _: (&mut [f32], usize), _: (usize, usize)) -> (usize, usize) {
    (0, 0)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256, __m512};

    use pulp::cast;
    use pulp::x86::{V3, V4};

    /// `N` numbers from the start of `x`.
    #[inline(always)]
    fn first<const N: usize>(x: &[f32]) -> [f32; N] {
        let mut out = [0.0; N];
        out.copy_from_slice(&x[..N]);
        out
    }

    /// Sixteen rows of sixteen numbers. Fours of rows first exchange within parts of four numbers;
    /// then fours of parts change places.
    #[inline(always)]
    pub(super) fn tile16(v4: V4, from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
        let v = v4.avx512f;
        let mut rows: [__m512; 16] = [cast([0.0f32; 16]); 16];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = cast(first::<16>(&from[r * from_stride..]));
        }
        let mut parts = rows;
        for four in 0..4 {
            let at = 4 * four;
            let (a, b, c, d) = (rows[at], rows[at + 1], rows[at + 2], rows[at + 3]);
            let (ab, cd) = (v._mm512_unpacklo_ps(a, b), v._mm512_unpacklo_ps(c, d));
            (parts[at], parts[at + 1]) = (v._mm512_shuffle_ps::<0x44>(ab, cd), v._mm512_shuffle_ps::<0xee>(ab, cd));
            let (ab, cd) = (v._mm512_unpackhi_ps(a, b), v._mm512_unpackhi_ps(c, d));
            (parts[at + 2], parts[at + 3]) = (v._mm512_shuffle_ps::<0x44>(ab, cd), v._mm512_shuffle_ps::<0xee>(ab, cd));
        }
        for c in 0..4 {
            let (even, odd) = (
                [
                    v._mm512_shuffle_f32x4::<0x88>(parts[c], parts[4 + c]),
                    v._mm512_shuffle_f32x4::<0x88>(parts[8 + c], parts[12 + c]),
                ],
                [
                    v._mm512_shuffle_f32x4::<0xdd>(parts[c], parts[4 + c]),
                    v._mm512_shuffle_f32x4::<0xdd>(parts[8 + c], parts[12 + c]),
                ],
            );
            let columns = [
                v._mm512_shuffle_f32x4::<0x88>(even[0], even[1]),
                v._mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]),
                v._mm512_shuffle_f32x4::<0xdd>(even[0], even[1]),
                v._mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]),
            ];
            for (part, column) in columns.into_iter().enumerate() {
                to[(4 * part + c) * to_stride..][..16].copy_from_slice(&cast::<_, [f32; 16]>(column));
            }
        }
    }

    /// Eight rows of eight numbers, in the same way.
    #[inline(always)]
    pub(super) fn tile8(v3: V3, from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
        let v = v3.avx;
        let mut rows: [__m256; 8] = [cast([0.0f32; 8]); 8];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = cast(first::<8>(&from[r * from_stride..]));
        }
        let mut parts = rows;
        for at in [0, 4] {
            let (a, b, c, d) = (rows[at], rows[at + 1], rows[at + 2], rows[at + 3]);
            let (ab, cd) = (v._mm256_unpacklo_ps(a, b), v._mm256_unpacklo_ps(c, d));
            (parts[at], parts[at + 1]) = (v._mm256_shuffle_ps::<0x44>(ab, cd), v._mm256_shuffle_ps::<0xee>(ab, cd));
            let (ab, cd) = (v._mm256_unpackhi_ps(a, b), v._mm256_unpackhi_ps(c, d));
            (parts[at + 2], parts[at + 3]) = (v._mm256_shuffle_ps::<0x44>(ab, cd), v._mm256_shuffle_ps::<0xee>(ab, cd));
        }
        for c in 0..4 {
            let low = v._mm256_permute2f128_ps::<0x20>(parts[c], parts[4 + c]);
            let high = v._mm256_permute2f128_ps::<0x31>(parts[c], parts[4 + c]);
            to[c * to_stride..][..8].copy_from_slice(&cast::<_, [f32; 8]>(low));
            to[(4 + c) * to_stride..][..8].copy_from_slice(&cast::<_, [f32; 8]>(high));
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::transpose;
    use crate::device::cpu::tests::kinds;

    struct Job {
        sizes: (usize, usize),
        strides: (usize, usize),
    }

    impl WithSimd for Job {
        type Output = (Vec<f32>, Vec<f32>);

        fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
            let (rows, columns) = self.sizes;
            let from: Vec<f32> = (0..rows * self.strides.0).map(|i| i as f32).collect();
            let mut to = vec![-1.0; columns * self.strides.1];
            transpose::<S>((&from, self.strides.0), (&mut to, self.strides.1), self.sizes);
            (from, to)
        }
    }

    #[test]
    fn every_kind_of_vector_transposes_every_shape() {
        for kind in kinds() {
            for (rows, columns) in [(0, 3), (1, 1), (7, 9), (8, 8), (16, 16), (17, 33), (35, 16), (64, 48)] {
                let strides = (columns + 3, rows + 5);
                let (from, to) = kind.dispatch(Job { sizes: (rows, columns), strides });
                for (c, line) in to.chunks(strides.1).enumerate() {
                    for (r, &value) in line.iter().enumerate() {
                        let want = if r < rows { from[r * strides.0 + c] } else { -1.0 };
                        assert_eq!(value, want, "{kind:?} {rows} × {columns}, at {r}, {c}");
                    }
                }
            }
        }
    }
}
