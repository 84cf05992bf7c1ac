// A bundle run from Rust, without any crate: rustc run.rs -L . -l graphwright -C link-arg=-Wl,-rpath,'$ORIGIN'
//
//     run BUNDLE                  runs it once on ones, masks of ones and ids of ones, and prints each output's
//                                 shape and its bytes in hexadecimal digits
//     run BUNDLE 2 7              the same with 2 and 7 for the sizes that a call chooses, in the order of axes
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::{env, process, ptr, slice};

#[repr(C)]
struct Array {
    name: *const c_char,
    dtype: *const c_char,
    shape: *const i64,
    rank: usize,
    data: *const c_void,
}

#[link(name = "graphwright")]
extern "C" {
    fn gw_load(directory: *const c_char, threads: c_int, bundle: *mut *mut c_void) -> c_int;
    fn gw_input_count(bundle: *const c_void) -> usize;
    fn gw_input(bundle: *const c_void, number: usize) -> *const Array;
    fn gw_run(bundle: *mut c_void, inputs: *const Array, count: usize, result: *mut *mut c_void) -> c_int;
    fn gw_result_count(result: *const c_void) -> usize;
    fn gw_result_array(result: *const c_void, number: usize) -> *const Array;
    fn gw_result_free(result: *mut c_void);
    fn gw_free(bundle: *mut c_void);
    fn gw_error() -> *const c_char;
}

fn text(pointer: *const c_char) -> String {
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn checked(status: c_int) {
    if status != 0 {
        eprintln!("{}", text(unsafe { gw_error() }));
        process::exit(1);
    }
}

// Ones of a dtype, as bytes.
fn ones(dtype: &str, count: usize) -> Vec<u8> {
    let one: Vec<u8> = match dtype {
        "bool" | "int8" | "uint8" => vec![1],
        "int16" | "uint16" => 1i16.to_ne_bytes().to_vec(),
        "int32" | "uint32" => 1i32.to_ne_bytes().to_vec(),
        "int64" | "uint64" => 1i64.to_ne_bytes().to_vec(),
        "float32" => 1f32.to_ne_bytes().to_vec(),
        "float64" => 1f64.to_ne_bytes().to_vec(),
        other => {
            eprintln!("this example makes no {other}");
            process::exit(1)
        }
    };
    one.repeat(count)
}

fn width(dtype: &str) -> usize {
    match dtype {
        "bool" | "int8" | "uint8" => 1,
        "int16" | "uint16" | "float16" | "bfloat16" => 2,
        "int32" | "uint32" | "float32" => 4,
        _ => 8,
    }
}

fn main() {
    let words: Vec<String> = env::args().collect();
    if words.len() < 2 {
        eprintln!("usage: run BUNDLE [SIZE ...]");
        process::exit(2);
    }
    let sizes: Vec<i64> = words[2..].iter().map(|word| word.parse().expect("a size is a whole number")).collect();
    let path = CString::new(words[1].as_str()).expect("a path holds no NUL character");
    let mut bundle = ptr::null_mut();
    checked(unsafe { gw_load(path.as_ptr(), 0, &mut bundle) });
    let (mut shapes, mut data) = (Vec::new(), Vec::new());
    let count = unsafe { gw_input_count(bundle) };
    for number in 0..count {
        let input = unsafe { &*gw_input(bundle, number) };
        let wanted = if input.rank == 0 { &[] } else { unsafe { slice::from_raw_parts(input.shape, input.rank) } };
        let mut chosen = sizes.iter().copied().chain(std::iter::repeat(1));
        let shape: Vec<i64> = wanted.iter().map(|&size| if size < 0 { chosen.next().unwrap() } else { size }).collect();
        data.push(ones(&text(input.dtype), shape.iter().product::<i64>() as usize));
        shapes.push(shape);
    }
    let inputs: Vec<Array> = (0..count)
        .map(|number| {
            let input = unsafe { &*gw_input(bundle, number) };
            Array {
                name: input.name,
                dtype: input.dtype,
                shape: shapes[number].as_ptr(),
                rank: shapes[number].len(),
                data: data[number].as_ptr().cast(),
            }
        })
        .collect();
    let mut result = ptr::null_mut();
    checked(unsafe { gw_run(bundle, inputs.as_ptr(), count, &mut result) });
    for number in 0..unsafe { gw_result_count(result) } {
        let output = unsafe { &*gw_result_array(result, number) };
        let shape = if output.rank == 0 { &[] } else { unsafe { slice::from_raw_parts(output.shape, output.rank) } };
        let bytes = shape.iter().product::<i64>() as usize * width(&text(output.dtype));
        let content = unsafe { slice::from_raw_parts(output.data.cast::<u8>(), bytes) };
        let hex: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{} {shape:?} {hex}", text(output.name));
    }
    unsafe { gw_result_free(result) };
    unsafe { gw_free(bundle) };
}
