package boltstore

import (
	"encoding/binary"
	"hash/crc64"

	"go.etcd.io/bbolt"
)

// bbolt has checksums on its meta pages only. A bit that flips elsewhere may leave
// the tree in order and make another session's lifetime or an earlier refresh token
// of it. So meta keeps the sum of the checksums of all entries, which each write
// brings up to date at the cost of looking at what it overwrites, and Open
// compares it with what is there.

var sumKey = []byte("sum")

var polynomial = crc64.MakeTable(crc64.ECMA)

// sum is the checksum of an entry.
func sum(bucket, key, value []byte) uint64 {
	c := crc64.Update(0, polynomial, bucket)
	return crc64.Update(crc64.Update(c, polynomial, key), polynomial, value)
}

// sumOf adds up all entries.
func sumOf(tx *bbolt.Tx) (total uint64) {
	for _, name := range contents {
		b := tx.Bucket(name)
		_ = b.ForEach(func(key, value []byte) error {
			total += sum(name, key, value)
			return nil
		})
	}
	return total
}

// storedSum returns what meta says.
func storedSum(tx *bbolt.Tx) uint64 {
	value := tx.Bucket(meta).Get(sumKey)
	if len(value) != 8 {
		return 0 // which only an empty file has
	}
	return binary.BigEndian.Uint64(value)
}

func encodeSum(sum uint64) []byte { return binary.BigEndian.AppendUint64(nil, sum) }
