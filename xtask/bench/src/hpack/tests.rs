use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |c: char| u8::try_from(c.to_digit(16).expect("a digit")).expect("small");
    let digits: Vec<u8> = hex.chars().filter(|c| !c.is_whitespace()).map(digit).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn status(status: u32) -> Head {
    Head { status: Some(status), grpc_status: None }
}

#[test]
fn the_responses_of_the_rfc_are_read_with_a_table_of_256_bytes() {
    // RFC 7541, C.6: with Huffman codes, indexed fields and evictions.
    let mut decoder = Decoder::new();
    decoder.limit = 256;
    let first = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    assert_eq!(decoder.decode(&bytes(first)).expect("a block"), status(302));
    assert_eq!(decoder.size, 222);
    assert_eq!(decoder.decode(&bytes("4883 640e ffc1 c0bf")).expect("a block"), status(307));
    assert_eq!(decoder.size, 222);
    let third = "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
                 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07";
    assert_eq!(decoder.decode(&bytes(third)).expect("a block"), status(200));
    assert_eq!(decoder.size, 215);
}

#[test]
fn the_status_of_a_call_is_found_literally_and_by_its_index() {
    let mut decoder = Decoder::new();
    let literal = [b"\x40\x0bgrpc-status\x02".as_slice(), b"16"].concat();
    let unauthenticated = Head { status: None, grpc_status: Some(16) };
    assert_eq!(decoder.decode(&literal).expect("a block"), unauthenticated);
    assert_eq!(decoder.decode(&[0xbe]).expect("a block"), unauthenticated);
    assert_eq!(decoder.decode(b"\x0f\x2f\x01\x30").expect("the same name, not kept").grpc_status, Some(0));
    assert_eq!(decoder.decode(&[0xbe]).expect("a block"), unauthenticated);
}

#[test]
fn what_is_no_block_is_an_error() {
    for block in
        [b"\xbe".as_slice(), b"\x80", b"\x40", b"\x40\x05abc", b"\x40\x81\xff\x01a", b"\xff\xff\xff\xff\xff\xff"]
    {
        Decoder::new().decode(block).expect_err("no block");
    }
}
