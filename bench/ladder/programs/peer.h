/* What probe and peer say to each other: one byte that asks, then data or an answer of one byte. */
#ifndef PEER_H
#define PEER_H

#define PEER_ECHO 'e'
/* Takes PEER_DATA_BYTES and answers. */
#define PEER_TAKE 't'
/* Gives PEER_DATA_BYTES. */
#define PEER_GIVE 'g'
#define PEER_DATA_BYTES 65536

#endif
