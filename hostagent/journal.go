package hostagent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"buf.build/go/protovalidate"
	"github.com/google/uuid"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	v1 "daybreak/proto/daybreak/v1"
)

// ErrJournalDamaged: the journal cannot be read, so nobody knows which generations this host has seen. The agent then
// only looks; moving the file away makes it begin anew, with everything that runs as an orphan.
var ErrJournalDamaged = errors.New("the journal is damaged")

// journalFormat is written into new journals; another one is refused, not guessed at.
const journalFormat = "daybreak-agent 1"

// maxBatchDelay is how long a write waits for others to share its sync with.
const maxBatchDelay = 2 * time.Millisecond

// Journal is what the agent must not forget: for each desktop the highest generation it ever saw, for each incarnation
// its assignment, the states it reached, whether it was ever started, and the last notice shown; the highest cluster epoch; the
// memory that the host keeps for itself; and in which boot of the host the control plane last said all. Every write is on the disk before it returns.
type Journal struct {
	db     *bbolt.DB
	damage error
}

// JournalOptions are for tests; the zero value is what a host needs.
type JournalOptions struct {
	// NoSync leaves the writes to the kernel: a power loss forgets them.
	NoSync bool
}

// OpenJournal opens or makes the journal at path. It is locked: a second agent gets an error. A damaged one is no error
// here: the agent runs on it, but acts on nothing.
func OpenJournal(path string, options JournalOptions) (*Journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	db, err := openBolt(path, options)
	switch {
	case errors.Is(err, ErrJournalDamaged):
		return &Journal{damage: fmt.Errorf("open journal %s: %w", path, err)}, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("open journal %s: it is locked: another agent runs on this data directory", path)
	case err != nil:
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := checkBolt(db, path); err != nil {
		_ = db.Close()
		return &Journal{damage: fmt.Errorf("open journal %s: %w", path, err)}, nil
	}
	if err := prepareBolt(db); err != nil {
		_ = db.Close()
		if errors.Is(err, ErrJournalDamaged) {
			return &Journal{damage: fmt.Errorf("open journal %s: %w", path, err)}, nil
		}
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return &Journal{db: db}, nil
}

// openBolt turns what bbolt does with a damaged file (errors, panics, reads past its end) into ErrJournalDamaged.
func openBolt(path string, options JournalOptions) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrJournalDamaged, p)
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoSync: options.NoSync, FreelistType: bbolt.FreelistMapType})
	var pathError *fs.PathError
	if err != nil && !errors.As(err, &pathError) && !errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: %w", ErrJournalDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	db.MaxBatchDelay = maxBatchDelay
	return db, nil
}

// checkBolt walks every page before anything trusts them.
func checkBolt(db *bbolt.DB, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrJournalDamaged, err)
	}
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("%w: the file was cut off", ErrJournalDamaged)
		}
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = fmt.Errorf("%w: %w", ErrJournalDamaged, err)
			}
		}
		return first
	})
}

func prepareBolt(db *bbolt.DB) error {
	return db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketHighest, bucketAssignments, bucketStatuses, bucketStarts, bucketNotices} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		format := meta.Get(metaFormat)
		if format == nil {
			return meta.Put(metaFormat, seal([]byte(journalFormat)))
		}
		if text, err := unseal(format); err != nil || string(text) != journalFormat {
			return fmt.Errorf("%w: its format is %q, want %q", ErrJournalDamaged, text, journalFormat)
		}
		return nil
	})
}

// Empty reports whether this host never had a desktop. A damaged journal does not say so.
func (j *Journal) Empty() bool {
	empty := false
	if j.damage == nil {
		_ = j.db.View(func(tx *bbolt.Tx) error {
			first, _ := tx.Bucket(bucketHighest).Cursor().First()
			empty = first == nil
			return nil
		})
	}
	return empty
}

// Close lets go of the file.
func (j *Journal) Close() error {
	if j.db == nil {
		return nil
	}
	return j.db.Close()
}

// lifeKey tells lives apart; the desktop's name is only for people.
type lifeKey struct {
	uid        string
	generation int64
}

func keyOf(life Life) lifeKey { return lifeKey{uid: life.UID, generation: life.Generation} }

// started says whether a life's VM was ever started.
type started byte

const (
	startNever started = iota
	// startIntended: the journal was told before the hypervisor was. What became of it, the lists will tell.
	startIntended
	// startConfirmed: the hypervisor said that the VM runs. This life is never started again.
	startConfirmed
)

// startMark is what is remembered of a life's start.
type startMark struct {
	phase started
	// bootID of the host when it was started: with another one, every QEMU of then is dead.
	bootID string
}

// record is all that the journal holds of one life.
type record struct {
	life       Life
	assignment *v1.Assignment
	status     *v1.DesktopStatus
	start      startMark
	noticed    string
}

// memory is all that the journal holds.
type memory struct {
	epoch uint64
	told  string // see book
	// reserved is the memory that the host keeps, MiB.
	reserved uint64
	highest  map[string]int64
	lives    map[lifeKey]*record
	// unruly says of each value that breaks this agent's rules what was left of it. Another version wrote it.
	unruly []error
}

var (
	bucketMeta        = []byte("meta")
	bucketHighest     = []byte("highest")
	bucketAssignments = []byte("assignments")
	bucketStatuses    = []byte("statuses")
	bucketStarts      = []byte("starts")
	bucketNotices     = []byte("notices")
	metaFormat        = []byte("format")
	metaEpoch         = []byte("epoch")
	metaTold          = []byte("told")
	metaReserved      = []byte("reserved-memory")
)

// load reads the whole journal. Anything that is not as it was written makes it damaged as a whole: half a memory of
// generations is no fence. What was written by other rules than today's is not damage: the rules are the proto's, and change.
func (j *Journal) load() (memory, error) {
	if j.damage != nil {
		return memory{}, j.damage
	}
	m := memory{highest: map[string]int64{}, lives: map[lifeKey]*record{}}
	err := j.db.View(func(tx *bbolt.Tx) error {
		if raw := tx.Bucket(bucketMeta).Get(metaEpoch); raw != nil {
			epoch, err := decodeNumber(raw)
			if err != nil {
				return fmt.Errorf("%w: cluster epoch: %w", ErrJournalDamaged, err)
			}
			m.epoch = epoch
		}
		if raw := tx.Bucket(bucketMeta).Get(metaTold); raw != nil {
			told, err := unseal(raw)
			if err != nil {
				return fmt.Errorf("%w: boot of the last orders: %w", ErrJournalDamaged, err)
			}
			m.told = string(told)
		}
		if raw := tx.Bucket(bucketMeta).Get(metaReserved); raw != nil {
			reserved, err := decodeNumber(raw)
			if err != nil {
				return fmt.Errorf("%w: reserved memory: %w", ErrJournalDamaged, err)
			}
			m.reserved = reserved
		}
		for _, bucket := range []struct {
			name []byte
			take func(*memory, []byte, []byte) error
		}{
			{bucketHighest, (*memory).takeHighest}, {bucketStatuses, (*memory).takeStatus},
			{bucketAssignments, (*memory).takeAssignment}, {bucketStarts, (*memory).takeStart},
			{bucketNotices, (*memory).takeNotice},
		} {
			err := tx.Bucket(bucket.name).ForEach(func(k, v []byte) error {
				if err := bucket.take(&m, k, v); err != nil {
					return fmt.Errorf("%w: %s of %x: %w", ErrJournalDamaged, bucket.name, k, err)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return memory{}, fmt.Errorf("read journal: %w", err)
	}
	return m, nil
}

func (m *memory) takeHighest(k, v []byte) error {
	generation, err := decodeNumber(v)
	if err != nil {
		return err
	}
	if uuid.Validate(string(k)) != nil || int64(generation) <= 0 {
		return errors.New("it is no generation of a desktop")
	}
	m.highest[string(k)] = int64(generation)
	return nil
}

func (m *memory) takeStatus(k, v []byte) error {
	key, err := decodeKey(k)
	if err != nil {
		return err
	}
	report, err := decodeMessage(v, &v1.IncarnationReport{})
	if errors.Is(err, errUnruly) {
		// The state outlasts whatever else there is: it only goes forward.
		status := report.GetStatus()
		report.Status = &v1.DesktopStatus{Generation: status.GetGeneration(), State: status.GetState()}
		m.unruly = append(m.unruly, fmt.Errorf("status of generation %d of %s keeps its state only: %w", key.generation, key.uid, err))
		err = protovalidate.Validate(report)
	}
	if err != nil {
		return err
	}
	if report.GetUid() != key.uid || report.GetStatus().GetGeneration() != key.generation {
		return errors.New("it is of another life")
	}
	m.lives[key] = &record{life: Life{Desktop: report.GetDesktop(), UID: key.uid, Generation: key.generation}, status: report.GetStatus()}
	return nil
}

func (m *memory) takeAssignment(k, v []byte) error {
	key, err := decodeKey(k)
	if err != nil {
		return err
	}
	assignment, err := decodeMessage(v, &v1.Assignment{})
	if err != nil && !errors.Is(err, errUnruly) {
		return err
	}
	rec := m.lives[key]
	if rec == nil || assignment.GetUid() != key.uid || assignment.GetIncarnation().GetGeneration() != key.generation {
		return errors.New("it is of another life")
	}
	if err != nil {
		m.unruly = append(m.unruly, fmt.Errorf("generation %d of %s is an orphan until it is assigned anew: %w", key.generation, key.uid, err))
		return nil
	}
	rec.assignment = assignment
	return nil
}

func (m *memory) takeStart(k, v []byte) error {
	key, err := decodeKey(k)
	if err != nil {
		return err
	}
	payload, err := unseal(v)
	if err != nil {
		return err
	}
	rec := m.lives[key]
	if rec == nil || len(payload) == 0 || started(payload[0]) > startConfirmed {
		return errors.New("no start of a life")
	}
	rec.start = startMark{phase: started(payload[0]), bootID: string(payload[1:])}
	return nil
}

// write runs changes in one transaction and returns when it is durable.
func (j *Journal) write(change func(journalTx) error) error {
	if j.damage != nil {
		return j.damage
	}
	if err := j.db.Update(func(tx *bbolt.Tx) error { return change(journalTx{tx}) }); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// join is write in a transaction shared with others that come within maxBatchDelay: it waits for them, so no lock may be
// held.
func (j *Journal) join(change func(journalTx) error) error {
	if j.damage != nil {
		return j.damage
	}
	if err := j.db.Batch(func(tx *bbolt.Tx) error { return change(journalTx{tx}) }); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

func encodeKey(key lifeKey) []byte {
	return binary.BigEndian.AppendUint64([]byte(key.uid), uint64(key.generation))
}

func decodeKey(raw []byte) (lifeKey, error) {
	if len(raw) != 36+8 {
		return lifeKey{}, fmt.Errorf("its key has %d bytes", len(raw))
	}
	key := lifeKey{uid: string(raw[:36]), generation: int64(binary.BigEndian.Uint64(raw[36:]))}
	if uuid.Validate(key.uid) != nil || key.generation <= 0 {
		return lifeKey{}, errors.New("its key is no life")
	}
	return key, nil
}

// errUnruly: a message is as it was written, and breaks a rule of today's.
var errUnruly = errors.New("it breaks a rule of this version")

// decodeMessage reads a sealed message and holds it to the same rules as one from a peer; with errUnruly it is what was read.
func decodeMessage[M proto.Message](raw []byte, message M) (M, error) {
	payload, err := unseal(raw)
	if err != nil {
		return message, err
	}
	if err := proto.Unmarshal(payload, message); err != nil {
		return message, err
	}
	if err := protovalidate.Validate(message); err != nil {
		return message, fmt.Errorf("%w: %w", errUnruly, err)
	}
	return message, nil
}
