// Command verify is a foreign judge of the log: it shares no code with the product. It reads a JSON
// array of sets on standard input and checks each with golang.org/x/mod/sumdb/{note,tlog}, the
// packages behind Go's own checksum database.
//
// It prints one line for each set, "accepted" or "refused: <reason>", and exits 0 when all were
// accepted, 1 when any was refused, 2 when the input could not be read.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// consistency says that the log once had Size leaves under Root, and proves that it only grew.
type consistency struct {
	Size  int64    `json:"size"`
	Root  string   `json:"root"`
	Proof []string `json:"proof"`
}

// set is all there is to say about one checkpoint: every leaf, and a proof for every leaf.
type set struct {
	VKey        string        `json:"vkey"`
	Note        string        `json:"note"`
	Leaves      [][]byte      `json:"leaves"` // base64 in JSON
	Inclusion   [][]string    `json:"inclusion"`
	Consistency []consistency `json:"consistency"`
}

func parseHashes(texts []string) ([]tlog.Hash, error) {
	hashes := []tlog.Hash{}
	for _, text := range texts {
		hash, err := tlog.ParseHash(text)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}

// openCheckpoint returns the tree that a note of the log's own key states (c2sp.org/tlog-checkpoint).
func openCheckpoint(text, vkey string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open([]byte(text), note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return tlog.Tree{}, errors.New("a checkpoint has three lines")
	}
	if lines[0] != verifier.Name() {
		return tlog.Tree{}, errors.New("the origin is not the name of the key")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// rootOf computes the root from the leaves alone, with nothing of the product's.
func rootOf(leaves [][]byte) (tlog.Hash, error) {
	stored := []tlog.Hash{}
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := []tlog.Hash{}
		for _, index := range indexes {
			found = append(found, stored[index])
		}
		return found, nil
	})
	for i, leaf := range leaves {
		hashes, err := tlog.StoredHashes(int64(i), leaf, reader)
		if err != nil {
			return tlog.Hash{}, err
		}
		stored = append(stored, hashes...)
	}
	return tlog.TreeHash(int64(len(leaves)), reader)
}

func check(s set) error {
	tree, err := openCheckpoint(s.Note, s.VKey)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if int64(len(s.Leaves)) != tree.N || int64(len(s.Inclusion)) != tree.N {
		return errors.New("the checkpoint counts other leaves")
	}
	root, err := rootOf(s.Leaves)
	if err != nil || root != tree.Hash {
		return errors.New("the leaves have another root")
	}
	for i, texts := range s.Inclusion {
		proof, err := parseHashes(texts)
		if err != nil {
			return fmt.Errorf("inclusion of %d: %w", i, err)
		}
		leaf := tlog.RecordHash(s.Leaves[i])
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, int64(i), leaf); err != nil {
			return fmt.Errorf("inclusion of %d: %w", i, err)
		}
	}
	for _, c := range s.Consistency {
		proof, err := parseHashes(c.Proof)
		if err != nil {
			return fmt.Errorf("consistency with %d: %w", c.Size, err)
		}
		old, err := tlog.ParseHash(c.Root)
		if err != nil {
			return fmt.Errorf("consistency with %d: %w", c.Size, err)
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, c.Size, old); err != nil {
			return fmt.Errorf("consistency with %d: %w", c.Size, err)
		}
	}
	return nil
}

func main() {
	var sets []set
	decoder := json.NewDecoder(bufio.NewReader(os.Stdin))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&sets); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	out := bufio.NewWriter(os.Stdout)
	code := 0
	for _, s := range sets {
		if err := check(s); err != nil {
			fmt.Fprintf(out, "refused: %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
			code = 1
		} else {
			fmt.Fprintln(out, "accepted")
		}
	}
	out.Flush()
	os.Exit(code)
}
