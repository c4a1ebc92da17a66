//! The targets of `fuzz/`, each over its seeds and some thousands of random changes of them: the same inputs every
//! time. The fuzzer itself runs for longer, see `fuzz/README.md`.

#[path = "../fuzz/targets.rs"]
mod targets;

const CHANGES: u64 = 3_000;

#[test]
fn no_bytes_make_a_reader_panic() {
    for (number, (name, target)) in (1_u64..).zip(targets::ALL) {
        let seeds = targets::seeds();
        seeds.iter().for_each(|seed| target(seed));
        let mut random = number;
        for _ in 0..CHANGES {
            let input = changed(&seeds, &mut random);
            let outcome = std::panic::catch_unwind(|| target(&input));
            assert!(outcome.is_ok(), "target {name} fails with {input:?}");
        }
    }
}

/// One seed behind another, with a few bytes changed.
fn changed(seeds: &[Vec<u8>], random: &mut u64) -> Vec<u8> {
    let mut next = |below: usize| {
        *random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (*random >> 33) as usize % below.max(1)
    };
    let mut input = seeds[next(seeds.len())].clone();
    input.extend_from_slice(&seeds[next(seeds.len())]);
    for _ in 0..next(8) {
        match (next(3), input.len()) {
            (_, 0) => input.push(next(256) as u8),
            (0, length) => input[next(length)] = next(256) as u8,
            (1, length) => input.insert(next(length), next(256) as u8),
            (_, length) => drop(input.remove(next(length))),
        }
    }
    input
}
