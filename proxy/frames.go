package proxy

import (
	"crypto/rand"
	"encoding/binary"
)

// frames tells where in a stream of WebSocket frames each of them ends (RFC 6455,
// section 5.2). It reads headers, skips payloads and judges neither: what is no
// frame is skipped as if it were one.
type frames struct {
	head   [14]byte // the header of the frame under way
	have   int      // bytes of it that are known; 0 between two frames
	size   int      // of the header, as far as it is known
	left   uint64   // bytes of the payload that have yet to come
	closed bool     // a close frame has passed, which is the last one (section 5.5.1)
}

// between tells whether another frame may be put in here. In the middle of a
// fragmented message that may be a control frame (section 5.4).
func (f *frames) between() bool { return f.have == 0 }

// next passes over the rest of the frame under way, or over the next one if none
// is, and returns how much of it is in p.
func (f *frames) next(p []byte) int {
	n := 0
	if f.have == 0 {
		f.size = 2
	}
	for f.have < f.size {
		if n == len(p) {
			return n
		}
		part := copy(f.head[f.have:f.size], p[n:])
		f.have += part
		n += part
		if f.have == 2 {
			f.size = headerSize(f.head[1])
		}
		if f.have == f.size {
			f.left = f.length()
		}
	}
	skip := min(f.left, uint64(len(p)-n))
	f.left -= skip
	if f.left == 0 {
		f.have = 0
		f.closed = f.closed || f.head[0]&0xf == opClose
	}
	return n + int(skip)
}

// skip passes over p.
func (f *frames) skip(p []byte) {
	for len(p) > 0 {
		p = p[f.next(p):]
	}
}

const (
	opClose  = 0x8
	isFinal  = 0x80 // in the first byte
	isMasked = 0x80 // in the second
)

// headerSize is the size of a header, given its second byte.
func headerSize(second byte) int {
	size := 2
	switch second &^ isMasked {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if second&isMasked != 0 {
		size += 4
	}
	return size
}

// length is the length of the payload.
func (f *frames) length() uint64 {
	switch n := f.head[1] &^ isMasked; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.head[2:])
	default:
		return uint64(n)
	}
}

// The codes of close frames (section 7.4).
const (
	goingAway     = 1001
	tryAgainLater = 1013
	sessionEnded  = 4401
)

// closeFrame is the last frame to a browser (section 5.5.1). The reason is short:
// control frames hold 125 bytes.
func closeFrame(code uint16, reason string) []byte {
	b := []byte{isFinal | opClose, byte(2 + len(reason))}
	return append(binary.BigEndian.AppendUint16(b, code), reason...)
}

// maskedCloseFrame is the last frame to an upstream, to which we are the client
// (section 5.3).
func maskedCloseFrame(code uint16) []byte {
	b := []byte{isFinal | opClose, isMasked | 2, 0, 0, 0, 0, 0, 0}
	mask := b[2:6]
	rand.Read(mask)
	binary.BigEndian.PutUint16(b[6:], code)
	b[6] ^= mask[0]
	b[7] ^= mask[1]
	return b
}
