package hostagent

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A value in the journal carries a checksum: bbolt itself does not see a flipped bit in a page.

func seal(payload []byte) []byte {
	sum := crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli))
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(payload)), sum), payload...)
}

func unseal(raw []byte) ([]byte, error) {
	if len(raw) < 4 {
		return nil, errors.New("the value is cut off")
	}
	payload := raw[4:]
	if crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(raw) {
		return nil, errors.New("the value does not match its checksum")
	}
	return payload, nil
}

func encodeNumber(n uint64) []byte { return seal(binary.BigEndian.AppendUint64(nil, n)) }

func decodeNumber(raw []byte) (uint64, error) {
	payload, err := unseal(raw)
	if err != nil {
		return 0, err
	}
	if len(payload) != 8 {
		return 0, errors.New("the value is no number")
	}
	return binary.BigEndian.Uint64(payload), nil
}
