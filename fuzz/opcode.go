package fuzz

// opcode is what a client can do: the first byte of each step of an input.
type opcode uint8

const (
	opWrite opcode = iota
	opRead
	opStore
	opMap
	opUnmap
	opEventfds
	opSetIRQs
	opWriteMulti
	opQuery
	opReset
	opFeature
	opMigrate
	opMigRead
	opMigWrite
	opAnswer
	opSettle
	opAwait
	opRaw
	opOdd
	opManner
	opTruncate
	opMischief
	opGift
	opReconnect
	opSecond
	opNeighbour
	numOpcodes
)

// operation is how an opcode is done, and on how many of the 256 values of a byte.
type operation struct {
	name   string
	weight int
	do     func(l *life)
}

var operations = [numOpcodes]operation{
	opWrite:      {"write", 56, (*life).doWrite},
	opRead:       {"read", 24, (*life).doRead},
	opStore:      {"store", 28, (*life).doStore},
	opMap:        {"map", 12, (*life).doMap},
	opUnmap:      {"unmap", 8, (*life).doUnmap},
	opEventfds:   {"eventfds", 6, (*life).doEventfds},
	opSetIRQs:    {"set interrupts", 12, (*life).doSetIRQs},
	opWriteMulti: {"write several", 8, (*life).doWriteMulti},
	opQuery:      {"query", 10, (*life).doQuery},
	opReset:      {"reset", 4, (*life).doReset},
	opFeature:    {"feature", 8, (*life).doFeature},
	opMigrate:    {"migrate", 8, (*life).doMigrate},
	opMigRead:    {"read state", 6, (*life).doMigRead},
	opMigWrite:   {"write state", 6, (*life).doMigWrite},
	opAnswer:     {"answer", 8, (*life).doAnswer},
	opSettle:     {"settle", 12, (*life).doSettle},
	opAwait:      {"await", 4, (*life).doAwait},
	opRaw:        {"raw", 3, (*life).doRaw},
	opOdd:        {"odd", 8, (*life).doOdd},
	opManner:     {"manner", 4, (*life).doManner},
	opTruncate:   {"truncate", 3, (*life).doTruncate},
	opMischief:   {"mischief", 3, (*life).doMischief},
	opGift:       {"gift", 8, (*life).doGift},
	opReconnect:  {"reconnect", 4, (*life).doReconnect},
	opSecond:     {"second", 1, (*life).doSecond},
	opNeighbour:  {"neighbour", 2, (*life).doNeighbour},
}

// opcodes is the operation of each byte, and codes the first byte of each operation.
var opcodes, codes = spread()

func spread() (table [256]*operation, first [numOpcodes]uint8) {
	n := 0
	for i := range operations {
		first[i] = uint8(n)
		for range operations[i].weight {
			table[n] = &operations[i]
			n++
		}
	}
	for ; n < len(table); n++ {
		table[n] = &operations[opWrite]
	}
	return table, first
}
