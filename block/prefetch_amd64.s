#include "textflag.h"

// Hints never fault, whatever lies behind the last line.

// func prefetchRead(p *byte)
TEXT ·prefetchRead(SB), NOSPLIT, $0-8
	MOVQ	p+0(FP), AX
	PREFETCHT0	(AX)
	PREFETCHT0	64(AX)
	PREFETCHT0	128(AX)
	PREFETCHT0	192(AX)
	RET

// PREFETCHW, for which the assembler has no name.
#define PREFETCHW \
	BYTE $0x0f; BYTE $0x0d; BYTE $0x08; \
	ADDQ	$64, AX

// func prefetchWrite(p *byte)
TEXT ·prefetchWrite(SB), NOSPLIT, $0-8
	MOVQ	p+0(FP), AX
	PREFETCHW
	PREFETCHW
	PREFETCHW
	PREFETCHW
	RET
