package block

import (
	"encoding/binary"
	"syscall"
)

// The numbers of the NBD protocol (doc/proto.md of NetworkBlockDevice/nbd). Everything on the
// wire is big-endian.
const (
	nbdMagic        = 0x4e42444d41474943 // NBDMAGIC
	nbdOptionMagic  = 0x49484156454f5054 // IHAVEOPT
	nbdOldMagic     = 0x00420281861253
	nbdReplyMagic   = 0x3e889045565a9 // of a reply to an option
	nbdRequestMagic = 0x25609513
	nbdSimpleMagic  = 0x67446698
	nbdChunkMagic   = 0x668e33ef

	nbdRequestSize = 28
	nbdSimpleSize  = 16
	nbdChunkSize   = 20

	nbdDefaultPort = "10809"
	// nbdMaxName is the longest name of an export, in bytes.
	nbdMaxName = 4096
	// nbdMaxPayload is the largest data of one command to a server that gives no limit.
	nbdMaxPayload = 32 << 20
)

// Handshake flags, the same numbers both ways.
const (
	nbdFixedNewstyle = 1 << iota
	nbdNoZeroes
)

// Options.
const (
	nbdOptExportName      = 1
	nbdOptGo              = 7
	nbdOptStructuredReply = 8
)

// Replies to options.
const (
	nbdRepAck  = 1
	nbdRepInfo = 3

	nbdRepErr           = 1 << 31
	nbdRepErrUnsup      = nbdRepErr + 1
	nbdRepErrPolicy     = nbdRepErr + 2
	nbdRepErrTLS        = nbdRepErr + 5
	nbdRepErrUnknown    = nbdRepErr + 6
	nbdRepErrShutdown   = nbdRepErr + 7
	nbdRepErrBlockSizes = nbdRepErr + 8

	nbdInfoExport    = 0
	nbdInfoBlockSize = 3
)

// Transmission flags: what an export can do.
const (
	nbdHasFlags        = 1 << 0
	nbdReadOnly        = 1 << 1
	nbdSendFlush       = 1 << 2
	nbdSendFUA         = 1 << 3
	nbdSendTrim        = 1 << 5
	nbdSendWriteZeroes = 1 << 6
	nbdCanMultiConn    = 1 << 8
	nbdSendFastZero    = 1 << 11

	nbdZeroesFast = nbdSendWriteZeroes | nbdSendFastZero
)

// Commands and their flags.
const (
	nbdCmdRead        = 0
	nbdCmdWrite       = 1
	nbdCmdDisconnect  = 2
	nbdCmdFlush       = 3
	nbdCmdTrim        = 4
	nbdCmdWriteZeroes = 6

	nbdFlagFUA      = 1 << 0
	nbdFlagNoHole   = 1 << 1
	nbdFlagFastZero = 1 << 4 // fail with ENOTSUP rather than write zeroes
)

// Chunks of a structured reply.
const (
	nbdChunkDone = 1 // flag: the last one

	nbdChunkNone       = 0
	nbdChunkOffsetData = 1
	nbdChunkOffsetHole = 2
	nbdChunkError      = 1 << 15 // this type, and all others with this bit
)

// putNBDRequest writes the header of a command into b.
func putNBDRequest(b []byte, p piece, handle uint64) {
	binary.BigEndian.PutUint32(b, nbdRequestMagic)
	binary.BigEndian.PutUint16(b[4:], p.flags)
	binary.BigEndian.PutUint16(b[6:], p.cmd)
	binary.BigEndian.PutUint64(b[8:], handle)
	binary.BigEndian.PutUint64(b[16:], uint64(p.off))
	binary.BigEndian.PutUint32(b[24:], uint32(p.n))
}

// nbdErrno is the error that a server's number means; the numbers are Linux'.
func nbdErrno(n uint32) syscall.Errno {
	switch e := syscall.Errno(n); e {
	case syscall.EPERM, syscall.ENOMEM, syscall.EINVAL, syscall.ENOSPC, syscall.EOVERFLOW, syscall.EOPNOTSUPP, syscall.ESHUTDOWN:
		return e
	}
	return syscall.EIO
}
