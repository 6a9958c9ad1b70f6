// Package qtest drives a real QEMU without a guest: qtest is an accelerator of QEMU's that
// runs no instruction and takes text commands instead, which read and write the machine's
// ports and memory as a processor would. Its vfio-user client does not know the
// difference. The tests serve devices in their own process and check both ends.
//
// QEMU is the one that package guest fetches. What does not live here: anything that takes
// an operating system in the machine.
package qtest
