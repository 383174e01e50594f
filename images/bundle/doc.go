// Package bundle is a file that carries one version of an image, signed, to a control plane that has no path to this one.
//
// Here: the file's format, its writer and its strict reader. Not here: fetching a version from a control plane and sending
// it to another (images/push), which publishers are trusted (images/sign, orchestrator/catalog). images/push, cmd and tests
// call it.
//
// The format, all numbers big-endian:
//
//	"daybreak bundle 1\n"
//	uint32 length, the header: daybreak.v1.BundleHeader
//	uint32 length, the manifest's encoded bytes
//	uint32 length, a bit for each distinct chunk of the manifest, in the order in which the manifest first names them, lowest
//	       bit of the first byte first: set when the chunk is in the bundle. Bits beyond the last chunk are 0.
//	for each of those chunks, in that order: uint32 length, the sealed chunk (one zstd frame)
//	32 bytes: BLAKE3-256 of all that stands before
//
// Nothing may follow. The chunks that are left out are those of the version that the header's since names; a bundle without
// since has them all. Whether a bundle may be trusted is told by the header's signatures alone, which bind its manifest to the
// image's name; each chunk must be what the manifest says. The last digest finds damage to the rest: the note, the date.
package bundle

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"buf.build/go/protovalidate"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	magic = "daybreak bundle 1\n"
	// maxHeader bounds the header: four signatures and two texts.
	maxHeader = 64 << 10
)

// ErrInvalid: a file that is no bundle, or a damaged one. The message says which.
var ErrInvalid = errors.New("not a whole bundle of an image version")

// distinct lists the chunks of a manifest as a bundle has them.
func distinct(manifest *images.Manifest) []images.Digest {
	var digests []images.Digest
	for digest := range manifest.Chunks() {
		digests = append(digests, digest)
	}
	return digests
}

// check says what is wrong with a header, by itself and beside its manifest.
func check(header *v1.BundleHeader, manifest *images.Manifest) error {
	if err := protovalidate.Validate(header); err != nil {
		return fmt.Errorf("header: %w: %w", err, ErrInvalid)
	}
	switch {
	case header.GetDigest() != manifest.Digest().String():
		return fmt.Errorf("the header names content %.12s…, the manifest is %.12s…: %w", header.GetDigest(), manifest.Digest(), ErrInvalid)
	case header.GetSizeBytes() != manifest.Size():
		return fmt.Errorf("the header says %d bytes, the manifest %d: %w", header.GetSizeBytes(), manifest.Size(), ErrInvalid)
	}
	return nil
}

// parseHeader takes what this release writes, and nothing beside.
func parseHeader(encoded []byte) (*v1.BundleHeader, error) {
	header := &v1.BundleHeader{}
	if err := proto.Unmarshal(encoded, header); err != nil {
		return nil, fmt.Errorf("header: %w: %w", err, ErrInvalid)
	}
	if len(header.ProtoReflect().GetUnknown()) > 0 {
		return nil, fmt.Errorf("header: it has fields that this release does not know: %w", ErrInvalid)
	}
	return header, nil
}
