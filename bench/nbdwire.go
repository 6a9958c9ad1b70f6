package bench

import (
	"encoding/binary"
	"errors"
)

// What is used here of the NBD protocol (doc/proto.md of NetworkBlockDevice/nbd), in which
// everything is big-endian: the fixed newstyle handshake, and simple replies.
const (
	nbdMagic        = 0x4e42444d41474943
	nbdOptionMagic  = 0x49484156454f5054
	nbdAnswerMagic  = 0x3e889045565a9 // of what an option is answered with
	nbdRequestMagic = 0x25609513
	nbdReplyMagic   = 0x67446698

	nbdFixedNewstyle = 1 << 0
	nbdNoZeroes      = 1 << 1

	nbdOptGo       = 7
	nbdAck         = 1
	nbdInfo        = 3
	nbdUnsupported = 1<<31 + 1

	nbdHasFlags  = 1 << 0
	nbdSendFlush = 1 << 2

	nbdRead       = 0
	nbdWrite      = 1
	nbdDisconnect = 2
	nbdFlush      = 3

	nbdRequestSize = 28
	nbdReplySize   = 16
)

// nbdLongest is the most data of a command, bytes.
const nbdLongest = 128 << 10

var errNBD = errors.New("bench: not the NBD that is spoken here")

// nbdAnswer is the answer of a kind to an option.
func nbdAnswer(option, kind uint32, data ...byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, nbdAnswerMagic)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// recvAll waits for all of p.
func recvAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := recvSome(fd, p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
