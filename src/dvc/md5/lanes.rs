//! MD5 of several contents at once, in the lanes of vector registers.
//!
//! One MD5 waits for its own last step all the time; eight side by side take hardly longer. They
//! go on together as long as the shortest of them has whole blocks, then that one leaves.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32 as add, _mm256_and_si256 as and, _mm256_extract_epi32,
    _mm256_or_si256 as or, _mm256_permute2x128_si256 as halves, _mm256_set_epi64x,
    _mm256_set1_epi32, _mm256_setr_epi32, _mm256_slli_epi32, _mm256_srli_epi32,
    _mm256_unpackhi_epi32 as high, _mm256_unpackhi_epi64 as high_pairs,
    _mm256_unpacklo_epi32 as low, _mm256_unpacklo_epi64 as low_pairs, _mm256_xor_si256 as xor,
};

/// Contents that are hashed at once.
pub(super) const LANES: usize = 8;

/// Bytes that are hashed together.
pub(super) const BLOCK: usize = 64;

/// The four words of a hash under way.
pub(super) type State = [u32; 4];

/// Fewer go faster one by one.
const WORTH: usize = 3;

/// What a hash begins with.
const BEGIN: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// Of each step: the first 32 bits of the sine's fraction.
const SINES: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];

/// Hashes whole blocks of up to eight contents, as many as go faster together; gives the state of
/// each hash, and how many bytes went into it.
#[target_feature(enable = "avx2")]
pub(super) fn begin_all(contents: &[&[u8]]) -> Vec<(State, usize)> {
    let mut begun = vec![(BEGIN, 0); contents.len()];
    let mut at = 0;
    loop {
        let goes_on = |n: &usize| contents[*n].len() >= at + BLOCK;
        let inside: Vec<usize> = (0..contents.len()).filter(goes_on).collect();
        if inside.len() < WORTH {
            return begun;
        }
        let shortest = inside.iter().map(|n| contents[*n].len()).min().unwrap_or(at);
        let end = at + (shortest - at) / BLOCK * BLOCK;
        // Lanes that nobody needs do what the last one does.
        let of_lane = |lane: usize| inside[lane.min(inside.len() - 1)];
        let mut states = std::array::from_fn(|lane| begun[of_lane(lane)].0);
        hash(&mut states, std::array::from_fn(|lane| &contents[of_lane(lane)][at..end]));
        for (n, state) in inside.into_iter().zip(states) {
            begun[n] = (state, end);
        }
        at = end;
    }
}

/// Hashes parts that are equally long and whole blocks.
#[target_feature(enable = "avx2")]
fn hash(states: &mut [State; LANES], parts: [&[u8]; LANES]) {
    let [mut a, mut b, mut c, mut d] = [0, 1, 2, 3].map(|word| gather(states, word));
    macro_rules! step {
        ($of:ident, $a:ident $b:ident $c:ident $d:ident, $word:expr, $sine:expr, $left:literal $right:literal) => {
            let sine = _mm256_set1_epi32(SINES[$sine].cast_signed());
            let sum = add(add($a, $of($b, $c, $d)), add($word, sine));
            $a = add($b, or(_mm256_slli_epi32::<$left>(sum), _mm256_srli_epi32::<$right>(sum)));
        };
    }
    for at in (0..parts[0].len()).step_by(BLOCK) {
        let words = words(&parts, at);
        let before = [a, b, c, d];
        macro_rules! round {
            ($of:ident, $round:literal, $first:literal + $step:literal, $($left:literal $right:literal),*) => {
                round!(@ $of, $round, |n: usize| words[($first + $step * n) % 16], $($left $right),*)
            };
            (@ $of:ident, $round:literal, $word:expr,
             $l0:literal $r0:literal, $l1:literal $r1:literal, $l2:literal $r2:literal, $l3:literal $r3:literal) => {
                for n in (0..16).step_by(4) {
                    let (word, sine) = ($word, 16 * $round + n);
                    step!($of, a b c d, word(n), sine, $l0 $r0);
                    step!($of, d a b c, word(n + 1), sine + 1, $l1 $r1);
                    step!($of, c d a b, word(n + 2), sine + 2, $l2 $r2);
                    step!($of, b c d a, word(n + 3), sine + 3, $l3 $r3);
                }
            };
        }
        round!(first, 0, 0 + 1, 7 25, 12 20, 17 15, 22 10);
        round!(second, 1, 1 + 5, 5 27, 9 23, 14 18, 20 12);
        round!(third, 2, 5 + 3, 4 28, 11 21, 16 16, 23 9);
        round!(fourth, 3, 0 + 7, 6 26, 10 22, 15 17, 21 11);
        [a, b, c, d] = [add(a, before[0]), add(b, before[1]), add(c, before[2]), add(d, before[3])];
    }
    for (word, vector) in [a, b, c, d].into_iter().enumerate() {
        scatter(vector, states, word);
    }
}

#[target_feature(enable = "avx2")]
fn first(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    xor(d, and(b, xor(c, d)))
}

#[target_feature(enable = "avx2")]
fn second(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    xor(c, and(d, xor(b, c)))
}

#[target_feature(enable = "avx2")]
fn third(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    xor(b, xor(c, d))
}

#[target_feature(enable = "avx2")]
fn fourth(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    xor(c, or(b, xor(d, _mm256_set1_epi32(-1))))
}

/// The 16 words of a block, each of all lanes.
#[target_feature(enable = "avx2")]
fn words(parts: &[&[u8]; LANES], at: usize) -> [__m256i; 16] {
    let [m0, m1, m2, m3, m4, m5, m6, m7] = turn(parts, at);
    let [m8, m9, m10, m11, m12, m13, m14, m15] = turn(parts, at + BLOCK / 2);
    [m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15]
}

/// Eight words of each lane, turned into the lanes of eight words.
#[target_feature(enable = "avx2")]
fn turn(parts: &[&[u8]; LANES], at: usize) -> [__m256i; LANES] {
    let [p0, p1, p2, p3, p4, p5, p6, p7] = parts;
    let (r0, r1, r2, r3) = (load(p0, at), load(p1, at), load(p2, at), load(p3, at));
    let (r4, r5, r6, r7) = (load(p4, at), load(p5, at), load(p6, at), load(p7, at));
    let (t0, t1, t2, t3) = (low(r0, r1), high(r0, r1), low(r2, r3), high(r2, r3));
    let (t4, t5, t6, t7) = (low(r4, r5), high(r4, r5), low(r6, r7), high(r6, r7));
    let (u0, u1) = (low_pairs(t0, t2), high_pairs(t0, t2));
    let (u2, u3) = (low_pairs(t1, t3), high_pairs(t1, t3));
    let (u4, u5) = (low_pairs(t4, t6), high_pairs(t4, t6));
    let (u6, u7) = (low_pairs(t5, t7), high_pairs(t5, t7));
    [
        halves::<0x20>(u0, u4),
        halves::<0x20>(u1, u5),
        halves::<0x20>(u2, u6),
        halves::<0x20>(u3, u7),
        halves::<0x31>(u0, u4),
        halves::<0x31>(u1, u5),
        halves::<0x31>(u2, u6),
        halves::<0x31>(u3, u7),
    ]
}

/// 32 bytes from `at` on.
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8], at: usize) -> __m256i {
    let (pairs, _) = bytes[at..at + BLOCK / 2].as_chunks();
    let pair = |n: usize| i64::from_le_bytes(pairs[n]);
    _mm256_set_epi64x(pair(3), pair(2), pair(1), pair(0))
}

/// One word of all states.
#[target_feature(enable = "avx2")]
fn gather(states: &[State; LANES], word: usize) -> __m256i {
    let [w0, w1, w2, w3, w4, w5, w6, w7] = states.map(|state| state[word].cast_signed());
    _mm256_setr_epi32(w0, w1, w2, w3, w4, w5, w6, w7)
}

#[target_feature(enable = "avx2")]
fn scatter(vector: __m256i, states: &mut [State; LANES], word: usize) {
    let lanes = [
        _mm256_extract_epi32::<0>(vector),
        _mm256_extract_epi32::<1>(vector),
        _mm256_extract_epi32::<2>(vector),
        _mm256_extract_epi32::<3>(vector),
        _mm256_extract_epi32::<4>(vector),
        _mm256_extract_epi32::<5>(vector),
        _mm256_extract_epi32::<6>(vector),
        _mm256_extract_epi32::<7>(vector),
    ];
    for (state, lane) in states.iter_mut().zip(lanes) {
        state[word] = lane.cast_unsigned();
    }
}
