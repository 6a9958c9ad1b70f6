#include "textflag.h"

// Hints never fault, whatever lies behind the last line.

// func prefetchRead(p *byte)
TEXT ·prefetchRead(SB), NOSPLIT, $0-8
	MOVD	p+0(FP), R0
	PRFM	(R0), PLDL1KEEP
	PRFM	64(R0), PLDL1KEEP
	PRFM	128(R0), PLDL1KEEP
	PRFM	192(R0), PLDL1KEEP
	RET

// func prefetchWrite(p *byte)
TEXT ·prefetchWrite(SB), NOSPLIT, $0-8
	MOVD	p+0(FP), R0
	PRFM	(R0), PSTL1KEEP
	PRFM	64(R0), PSTL1KEEP
	PRFM	128(R0), PSTL1KEEP
	PRFM	192(R0), PSTL1KEEP
	RET
