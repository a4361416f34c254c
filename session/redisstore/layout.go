package redisstore

import (
	"encoding/base64"
	"strconv"

	"sessiongate/session"
)

// clusterPartitions is how many there are in a Cluster. More nodes than that are of
// no use. While the slot of one is moved between nodes most writes there are
// refused, so a partition should be small. It cannot be changed without losing the
// sessions.
const clusterPartitions = 1024

// layout names keys.
type layout struct {
	prefix     string
	partitions int
}

func newLayout(prefix string, cluster bool) layout {
	if cluster {
		return layout{prefix, clusterPartitions}
	}
	return layout{prefix, 1}
}

// partition is where a session is, with all that leads to it. Base begins the
// names of all its keys.
type partition struct{ base, used, created, expires string }

func (l layout) in(number int) partition {
	base := l.prefix + "{" + strconv.Itoa(number) + "}:"
	return partition{base, base + "used", base + "created", base + "expires"}
}

// number is that of a session's partition. It grows with the keys, so that
// partitions one after the other have all sessions in the order of their keys.
func (l layout) number(key session.Key) int {
	return (int(key[0])<<8 | int(key[1])) * l.partitions >> 16
}

func (l layout) of(key session.Key) partition { return l.in(l.number(key)) }

func (p partition) session(key session.Key) string { return p.base + "session:" + string(key[:]) }
func (p partition) tag(tag session.Tag) string     { return p.base + "tag:" + string(tag[:]) }
func (p partition) mark(tag session.Tag) string    { return p.base + "mark:" + string(tag[:]) }
func (p partition) once(key session.Key) string    { return p.base + "once:" + string(key[:]) }
func (p partition) lease(key session.Key) string   { return p.base + "lease:" + string(key[:]) }

// directory tells in a Cluster where the sessions of a tag are.
type directory struct{ places, mark string }

func (l layout) directory(tag session.Tag) directory {
	// Not raw: a brace in the tag would end the hash tag.
	base := l.prefix + "{" + base64.RawURLEncoding.EncodeToString(tag[:]) + "}:"
	return directory{base + "places", base + "mark"}
}

// spread tells whether there are directories.
func (l layout) spread() bool { return l.partitions > 1 }
