package nvme

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"syscall"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// namespace is a backend as the host sees it. Only what Write Uncorrectable has marked
// changes.
type namespace struct {
	id      uint32
	backend block.Backend
	info    block.Info
	shift   uint8  // a logical block has 1 << shift bytes
	blocks  uint64 // size in logical blocks
	eui64   [8]byte
	nguid   [16]byte
	uuid    [16]byte

	bad      []extent      // blocks that cannot be read, ascending and apart: of uncorrectable
	readable atomic.Uint64 // the first of them, or the size: what is before it needs no look
}

func newNamespace(id uint32, serial string, n Namespace) (*namespace, error) {
	if n.Backend == nil {
		return nil, configError("namespace %d has no backend", id)
	}
	if n.BlockSize == 0 {
		n.BlockSize = 512
	}
	if n.BlockSize != 512 && n.BlockSize != 4096 {
		return nil, configError("namespace %d: blocks of %d bytes; 512 and 4096 are supported", id, n.BlockSize)
	}
	ns := &namespace{id: id, backend: n.Backend, info: n.Backend.Info(), shift: uint8(bits.TrailingZeros(uint(n.BlockSize)))}
	ns.blocks = uint64(n.Backend.Size()) >> ns.shift
	if ns.blocks == 0 {
		return nil, configError("namespace %d: %d bytes are less than a block of %d", id, n.Backend.Size(), n.BlockSize)
	}
	ns.cleanTo()
	ns.identifyBy(serial)
	return ns, nil
}

// identifyBy makes the namespace's identifiers. Only the control goroutine reads them.
func (ns *namespace) identifyBy(serial string) {
	sum := identity(serial, ns.id)
	copy(ns.eui64[:], sum[:8])
	ns.eui64[0] = ns.eui64[0]&^1 | 2 // a locally administered, individual address
	copy(ns.nguid[:], sum[8:24])
	ns.nguid[8] = ns.nguid[8]&^1 | 2
	ns.uuid = uuid(identity(serial, ns.id|1<<31))
}

// identity is what the identifiers of a drive are made of: the same serial number
// gives the same ones, another one others.
func identity(serial string, n uint32) [32]byte {
	return sha256.Sum256(binary.LittleEndian.AppendUint32([]byte("vfiouser nvme "+serial+" "), n))
}

// uuid makes a UUID of version 8 (RFC 9562, 5.8) out of a hash.
func uuid(sum [32]byte) (id [16]byte) {
	copy(id[:], sum[:])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// nqn is the name of the subsystem that the controller is (Base 1.4, 7.9).
func nqn(serial string) string {
	u := uuid(identity(serial, 0))
	return fmt.Sprintf("nqn.2014-08.org.nvmexpress:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// namespace finds an active namespace, nil if there is none of this number.
func (c *Controller) namespace(id uint32) *namespace {
	if i := id - 1; i < uint32(len(c.namespaces)) {
		return c.namespaces[i]
	}
	return nil
}

// identifyNamespace is CNS 00h.
func (c *Controller) identifyNamespace(n *namespace) *spec.IdentifyNamespace {
	id := &spec.IdentifyNamespace{
		Size: n.blocks, Capacity: n.blocks, Utilization: n.blocks,
		NVMCapacity: [2]uint64{n.blocks << n.shift},
		MSSRL:       uint16(c.maxCopy(n)), MCL: uint32(c.maxCopy(n)), MSRC: maxCopyRanges - 1,
		NGUID: n.nguid, EUI64: n.eui64,
	}
	if n.info.CanDiscard {
		id.DLFEAT = spec.DLFEATReadZeroes | spec.DLFEATWZDealloc
	}
	if n.info.ReadOnly {
		id.NSATTR = spec.NSAttrProtected
	}
	id.Formats[0].DataExponent = n.shift
	return id
}

// statusOf is how the failure of a backend is told to the host.
func statusOf(op block.Op, err error) spec.Status {
	switch {
	case err == nil:
		return spec.Success
	case errors.Is(err, block.ErrMemory):
		return spec.DataTransferError | spec.StatusDNR
	case errors.Is(err, block.ErrReadOnly):
		return spec.NamespaceWriteProtected | spec.StatusDNR
	case errors.Is(err, block.ErrRange):
		return spec.LBAOutOfRange | spec.StatusDNR
	case errors.Is(err, block.ErrRequest), errors.Is(err, block.ErrClosed):
		return spec.InternalError | spec.StatusDNR
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return spec.CapacityExceeded | spec.StatusDNR
	case op == block.Read:
		return spec.UnrecoveredRead
	}
	return spec.WriteFault
}
