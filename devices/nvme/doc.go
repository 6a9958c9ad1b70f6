// Package nvme is an NVM Express 1.4 controller with the NVM command set, a device
// of the engine: an unmodified guest, or a user-space driver, sees a PCIe NVMe
// drive whose namespaces are block backends.
//
// Register accesses arrive on the reactor and only change the register file.
// Everything that takes its time (enable, reset, shutdown, admin commands) runs on
// one control goroutine for each client. I/O queues are polled by the engine's
// workers straight in guest memory; what cannot be done there, because it must wait
// or because guest memory is reached by message only, is done by goroutines of the
// controller. Structures shared with drivers are in the package spec.
package nvme
