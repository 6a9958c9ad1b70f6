package spec

import "encoding/binary"

// Offsets of the fields of the device configuration (5.1.4).
const (
	ConfigMAC       = 0
	ConfigStatus    = 6
	ConfigPairs     = 8
	ConfigMTU       = 10
	ConfigSpeed     = 12
	ConfigDuplex    = 16
	ConfigKeySize   = 17
	ConfigTableSize = 18
	ConfigHashTypes = 20

	// ConfigSize is the size of the device configuration in bytes.
	ConfigSize = 24
)

// Bits of Config.Status.
const (
	StatusLinkUp   = 1
	StatusAnnounce = 2
)

// Values of Config.Speed and Config.Duplex.
const (
	SpeedUnknown  = 0xffffffff
	DuplexHalf    = 0
	DuplexFull    = 1
	DuplexUnknown = 0xff
)

// MinMTU is the least MTU that a card may report, bytes.
const MinMTU = 68

// MaxPairs is the most queue pairs that a card may have (VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX).
const MaxPairs = 0x8000

// Config is the device configuration. A field means something only if the feature that goes
// with it is offered.
type Config struct {
	MAC       [6]byte
	Status    uint16
	Pairs     uint16 // max_virtqueue_pairs
	MTU       uint16 // bytes
	Speed     uint32 // Mbit/s
	Duplex    uint8
	KeySize   uint8  // rss_max_key_size, bytes
	TableSize uint16 // rss_max_indirection_table_length, entries
	HashTypes uint32 // supported_hash_types
}

// Put writes ConfigSize bytes.
func (c *Config) Put(p []byte) {
	p = p[:ConfigSize]
	copy(p[ConfigMAC:], c.MAC[:])
	binary.LittleEndian.PutUint16(p[ConfigStatus:], c.Status)
	binary.LittleEndian.PutUint16(p[ConfigPairs:], c.Pairs)
	binary.LittleEndian.PutUint16(p[ConfigMTU:], c.MTU)
	binary.LittleEndian.PutUint32(p[ConfigSpeed:], c.Speed)
	p[ConfigDuplex] = c.Duplex
	p[ConfigKeySize] = c.KeySize
	binary.LittleEndian.PutUint16(p[ConfigTableSize:], c.TableSize)
	binary.LittleEndian.PutUint32(p[ConfigHashTypes:], c.HashTypes)
}

// Get reads ConfigSize bytes.
func (c *Config) Get(p []byte) {
	p = p[:ConfigSize]
	copy(c.MAC[:], p[ConfigMAC:])
	c.Status = binary.LittleEndian.Uint16(p[ConfigStatus:])
	c.Pairs = binary.LittleEndian.Uint16(p[ConfigPairs:])
	c.MTU = binary.LittleEndian.Uint16(p[ConfigMTU:])
	c.Speed = binary.LittleEndian.Uint32(p[ConfigSpeed:])
	c.Duplex = p[ConfigDuplex]
	c.KeySize = p[ConfigKeySize]
	c.TableSize = binary.LittleEndian.Uint16(p[ConfigTableSize:])
	c.HashTypes = binary.LittleEndian.Uint32(p[ConfigHashTypes:])
}

// ReceiveQueue is the index of the receive queue of a pair, counted from 0 (5.1.2).
func ReceiveQueue(pair int) int { return 2 * pair }

// TransmitQueue is the index of the transmit queue of a pair, counted from 0.
func TransmitQueue(pair int) int { return 2*pair + 1 }

// ControlQueue is the index of the control queue: behind the queues of all pairs of the
// configuration if MQ or RSS is negotiated, else behind one.
func ControlQueue(features uint64, pairs int) int {
	if features&(FeatureMQ|FeatureRSS) == 0 {
		pairs = 1
	}
	return 2 * pairs
}
