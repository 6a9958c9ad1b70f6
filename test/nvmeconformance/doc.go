// Package nvmeconformance checks an NVMe controller behind a vfio-user socket against the
// NVM Express specifications: one named check for each rule, from the registers to every
// command that the controller announces.
//
// It stands on packages client and devices/nvme/spec, one floor below drivers/nvme, because it
// has to do what no driver does: raw registers in every state, queues that do not fit, any
// command identifier. What structures hold is read by byte offset, so that a wrong offset in
// package spec is found as well.
//
// The checks overwrite the namespaces. A check of what is optional runs where the controller
// announces it; where it does not, the command must be refused.
package nvmeconformance
