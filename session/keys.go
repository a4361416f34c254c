package session

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// minKeyBytes is the least entropy a key of session.keys may hold.
const minKeyBytes = 32

// Keys is the list of session.keys: the first signs and seals, all verify and
// open, so that a key can be replaced while sessions live. Every use has a
// subkey of its own, derived by HKDF (RFC 5869) with the use's label.
//
// Safe for concurrent use.
type Keys struct {
	secrets [][]byte
	subkeys sync.Map // label -> [][]byte, one for each secret
}

// ParseKeys reads keys in base64 of any flavour, 32 bytes or more each. No part
// of a key is in the error.
func ParseKeys(encoded []string) (*Keys, error) {
	if len(encoded) == 0 {
		return nil, errors.New("session: no key given")
	}
	k := &Keys{}
	for i, e := range encoded {
		secret, err := DecodeKey(e)
		if err != nil {
			return nil, fmt.Errorf("session: key %d %w", i+1, err)
		}
		for j, other := range k.secrets {
			if bytes.Equal(secret, other) {
				return nil, fmt.Errorf("session: key %d is key %d again", i+1, j+1)
			}
		}
		k.secrets = append(k.secrets, secret)
	}
	return k, nil
}

// DecodeKey reads one key of session.keys. A key that was typed rather than drawn
// is refused: of 32 random bytes fewer than eight differ once in 2^100. No part of
// the key is in the error.
func DecodeKey(encoded string) ([]byte, error) {
	encoded = strings.TrimRight(strings.TrimSpace(encoded), "=")
	encoded = strings.NewReplacer("-", "+", "_", "/").Replace(encoded)
	secret, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("is not base64")
	}
	if len(secret) < minKeyBytes {
		return nil, fmt.Errorf("has %d bytes, and needs %d or more", len(secret), minKeyBytes)
	}
	different := make(map[byte]bool)
	for _, b := range secret {
		different[b] = true
	}
	if len(different) < 8 {
		return nil, errors.New("is a weak key: it repeats a few bytes")
	}
	return secret, nil
}

// derive returns the label's subkey of each key.
func (k *Keys) derive(label string) [][]byte {
	if v, ok := k.subkeys.Load(label); ok {
		return v.([][]byte)
	}
	subkeys := make([][]byte, len(k.secrets))
	for i, secret := range k.secrets {
		subkeys[i] = deriveKey(secret, "sessiongate "+label)
	}
	v, _ := k.subkeys.LoadOrStore(label, subkeys)
	return v.([][]byte)
}

// deriveKey is HKDF-SHA256 without salt: the secret is uniformly random.
func deriveKey(secret []byte, info string) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, info, 32)
	if err != nil {
		panic("session: hkdf: " + err.Error()) // only for lengths that are wrong in the program
	}
	return key
}

// MAC authenticates parts under the label's subkey of the first key. The parts
// are length-prefixed, so that no two lists of parts give one input
// (CVE-2023-35941).
func (k *Keys) MAC(label string, parts ...string) [32]byte {
	return mac(k.derive(label)[0], parts)
}

// MACs is MAC under every key, the first key's first: what a look-up tries.
func (k *Keys) MACs(label string, parts ...string) [][32]byte {
	subkeys := k.derive(label)
	macs := make([][32]byte, len(subkeys))
	for i, subkey := range subkeys {
		macs[i] = mac(subkey, parts)
	}
	return macs
}

// Hash is a short MAC for logs: it tells two values apart and nothing about them.
func (k *Keys) Hash(label string, parts ...string) string {
	m := k.MAC(label, parts...)
	return hex.EncodeToString(m[:8])
}

func mac(key []byte, parts []string) (sum [32]byte) {
	h := hmac.New(sha256.New, key)
	h.Write(prefixed(parts...))
	h.Sum(sum[:0])
	return sum
}

// prefixed joins parts so that they can be told apart again.
func prefixed(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

// Seal encrypts and authenticates plaintext under the first key's subkey for the
// label, together with bound, which Open must be given again. The result is
// base64url, fit for a cookie.
func (k *Keys) Seal(label, bound string, plaintext []byte) string {
	return base64.RawURLEncoding.EncodeToString(seal(k.derive(label)[0], []byte(bound), plaintext))
}

// Open undoes Seal, by whichever key it was done.
func (k *Keys) Open(label, bound, sealed string) ([]byte, error) {
	b, err := decodeOnly(base64.RawURLEncoding, sealed)
	if err != nil {
		return nil, errOpen
	}
	for _, subkey := range k.derive(label) {
		if plaintext, err := open(subkey, []byte(bound), b); err == nil {
			return plaintext, nil
		}
	}
	return nil, errOpen
}

// decodeOnly undoes the encoding of one string for each value, ours: base64
// decoders take others for it, with odd last bits and with line ends in between
// (RFC 4648, section 3.5).
func decodeOnly(enc *base64.Encoding, s string) ([]byte, error) {
	b, err := enc.Strict().DecodeString(s)
	if err == nil && len(s) != enc.EncodedLen(len(b)) {
		err = errOpen
	}
	return b, err
}

var errOpen = errors.New("session: sealed value cannot be opened")

// seal is AES-256-GCM with a random nonce in front. Each record has a key of its
// own and each cookie kind one for the life of session.keys, far below the 2^32
// messages that random 96-bit nonces are good for (ST-05).
func seal(key, bound, plaintext []byte) []byte {
	return aead(key).Seal(nil, nil, plaintext, bound)
}

func open(key, bound, sealed []byte) ([]byte, error) {
	plaintext, err := aead(key).Open(nil, nil, sealed, bound)
	if err != nil {
		return nil, errOpen
	}
	return plaintext, nil
}

func aead(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("session: aes: " + err.Error()) // only for key lengths that are wrong in the program
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("session: gcm: " + err.Error())
	}
	return a
}
