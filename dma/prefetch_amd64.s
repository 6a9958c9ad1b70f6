#include "textflag.h"

// func PrefetchWrite(p *byte)
TEXT ·PrefetchWrite(SB), NOSPLIT, $0-8
	MOVQ	p+0(FP), AX
	BYTE	$0x0f; BYTE $0x0d; BYTE $0x08	// PREFETCHW (AX), for which the assembler has no name
	RET
