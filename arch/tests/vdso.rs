//! The vDSO's linker against an ELF reader that is not ours.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use arch::vdso::{HEADER_BYTES, Image, Parts, Symbol, link};
use goblin::elf::Elf;

const SYMBOLS: [Symbol; 3] = [
    Symbol {
        name: "__kernel_rt_sigreturn",
        offset: HEADER_BYTES + 4,
        size: 8,
    },
    Symbol {
        name: "__kernel_clock_gettime",
        offset: HEADER_BYTES + 12,
        size: 100,
    },
    Symbol {
        name: "__kernel_clock_getres",
        offset: HEADER_BYTES + 112,
        size: 40,
    },
];

#[test]
fn a_reader_finds_every_symbol_and_its_version() {
    let mut image: Image = [0xcc; 4096];
    let parts = Parts {
        machine: 183,
        name: "linux-vdso.so.1",
        version: "LINUX_2.6.39",
        symbols: &SYMBOLS,
    };
    link(&mut image, &parts).unwrap();
    assert!(
        image[HEADER_BYTES..].iter().all(|b| *b == 0xcc),
        "code is not touched"
    );

    let elf = Elf::parse(&image).unwrap();
    assert_eq!(
        (elf.header.e_machine, elf.header.e_type, elf.is_64),
        (183, goblin::elf::header::ET_DYN, true)
    );
    assert_eq!(elf.soname, Some("linux-vdso.so.1"));
    let load = &elf.program_headers[0];
    assert_eq!(
        (load.p_vaddr, load.p_memsz, load.is_write(), load.is_executable()),
        (0, 4096, false, true)
    );

    let found: Vec<_> = elf
        .dynsyms
        .iter()
        .skip(1)
        .map(|s| (s.st_value, s.st_size, elf.dynstrtab.get_at(s.st_name)))
        .collect();
    let wanted: Vec<_> = SYMBOLS
        .iter()
        .map(|s| (s.offset as u64, s.size as u64, Some(s.name)))
        .collect();
    assert_eq!(found, wanted);
    for (i, s) in elf.dynsyms.iter().enumerate().skip(1) {
        assert!(s.is_function() && s.st_shndx != 0 && s.st_shndx < 0xff00);
        let word = |at: u64| u16::from_le_bytes(image[at as usize..][..2].try_into().unwrap());
        let dynamic = elf.dynamic.as_ref().unwrap();
        let tag = |t: u64| dynamic.dyns.iter().find(|d| d.d_tag == t).unwrap().d_val;
        assert_eq!(word(tag(goblin::elf::dynamic::DT_VERSYM) + 2 * i as u64), 2);
    }
}

/// Walks DT_HASH and the version definitions as a C library does.
#[test]
fn a_c_library_finds_a_symbol() {
    let mut image: Image = [0; 4096];
    let parts = Parts {
        machine: 62,
        name: "linux-vdso.so.1",
        version: "LINUX_2.6",
        symbols: &SYMBOLS,
    };
    link(&mut image, &parts).unwrap();
    let elf = Elf::parse(&image).unwrap();
    let dynamic = elf.dynamic.as_ref().unwrap();
    let tag = |t: u64| dynamic.dyns.iter().find(|d| d.d_tag == t).unwrap().d_val as usize;
    let half = |at: usize| u16::from_le_bytes(image[at..][..2].try_into().unwrap());
    let word = |at: usize| u32::from_le_bytes(image[at..][..4].try_into().unwrap());
    let text = |at: u32| elf.dynstrtab.get_at(at as usize);

    let table = tag(goblin::elf::dynamic::DT_HASH);
    let (buckets, count) = (word(table), word(table + 4));
    assert_eq!((buckets, count), (1, 4));
    let mut seen = Vec::new();
    let mut i = word(table + 8);
    while i != 0 {
        seen.push(
            elf.dynstrtab
                .get_at(elf.dynsyms.get(i as usize).unwrap().st_name)
                .unwrap(),
        );
        i = word(table + 12 + 4 * i as usize);
    }
    assert_eq!(seen, SYMBOLS.map(|s| s.name));

    let base = tag(goblin::elf::dynamic::DT_VERDEF);
    let second = base + word(base + 16) as usize;
    assert_eq!(
        (half(base + 2), half(base + 4), text(word(base + 20))),
        (1, 1, Some("linux-vdso.so.1"))
    );
    assert_eq!(
        (half(second + 4), word(second + 16), text(word(second + 20))),
        (2, 0, Some("LINUX_2.6"))
    );
    // The hash of "LINUX_2.6" as every C library has it.
    assert_eq!(word(second + 8), 0x03ae_75f6);
}

#[test]
fn too_many_symbols_are_refused() {
    let many = [Symbol {
        name: "a_rather_long_name_of_a_function",
        offset: 0,
        size: 0,
    }; 40];
    let parts = Parts {
        machine: 62,
        name: "x",
        version: "y",
        symbols: &many,
    };
    assert!(link(&mut [0; 4096], &parts).is_none());
}
