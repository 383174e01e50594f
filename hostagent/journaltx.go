package hostagent

import (
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	v1 "daybreak/proto/daybreak/v1"
)

// journalTx is one transaction on the journal. Its changes may run twice: they only write.
type journalTx struct{ tx *bbolt.Tx }

func (t journalTx) putEpoch(epoch uint64) error {
	return t.tx.Bucket(bucketMeta).Put(metaEpoch, encodeNumber(epoch))
}

func (t journalTx) putTold(bootID string) error {
	return t.tx.Bucket(bucketMeta).Put(metaTold, seal([]byte(bootID)))
}

func (t journalTx) putReserved(mib uint64) error {
	return t.tx.Bucket(bucketMeta).Put(metaReserved, encodeNumber(mib))
}

func (t journalTx) putHighest(uid string, generation int64) error {
	return t.tx.Bucket(bucketHighest).Put([]byte(uid), encodeNumber(uint64(generation)))
}

func (t journalTx) putAssignment(key lifeKey, assignment *v1.Assignment) error {
	if assignment == nil {
		return t.tx.Bucket(bucketAssignments).Delete(encodeKey(key))
	}
	return putMessage(t.tx.Bucket(bucketAssignments), key, assignment)
}

func (t journalTx) putStatus(life Life, status *v1.DesktopStatus) error {
	report := &v1.IncarnationReport{Desktop: life.Desktop, Uid: life.UID, Status: status}
	return putMessage(t.tx.Bucket(bucketStatuses), keyOf(life), report)
}

func (t journalTx) putStart(key lifeKey, mark startMark) error {
	return t.tx.Bucket(bucketStarts).Put(encodeKey(key), seal(append([]byte{byte(mark.phase)}, mark.bootID...)))
}

func (t journalTx) putNotice(key lifeKey, id string) error {
	return t.tx.Bucket(bucketNotices).Put(encodeKey(key), seal([]byte(id)))
}

func (t journalTx) forget(key lifeKey) error {
	for _, bucket := range [][]byte{bucketAssignments, bucketStatuses, bucketStarts, bucketNotices} {
		if err := t.tx.Bucket(bucket).Delete(encodeKey(key)); err != nil {
			return err
		}
	}
	return nil
}

func putMessage(bucket *bbolt.Bucket, key lifeKey, message proto.Message) error {
	raw, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	return bucket.Put(encodeKey(key), seal(raw))
}
