// Package choice makes a fuzzer's input, or a seed, a sequence of choices. A test that asks for
// choices reads its input as a program: which operation comes next, and with what arguments.
// Mutations of the bytes are then mutations of the program, most of which are valid for long
// enough to get deep into what is tested.
package choice
