PRAGMA application_id = 1731486055;
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0006');
CREATE TABLE blobs (
	sha256 VARCHAR NOT NULL, 
	size INTEGER NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_blobs PRIMARY KEY (sha256)
);
INSERT INTO "blobs" VALUES('207dda0d916be6ad267f1b690ff251ab05af694a15965cdf2231f938f1c0f9e4',13,X'78014B5428492C52482C4ACEC82C4B05001FB004CB');
INSERT INTO "blobs" VALUES('3f48941958bd27a809bf19d90dc7f122599e1177abf07cdea2681133959b5761',14,X'7801EB0CF073E7E592E2524854C82D4D07001A000394');
CREATE TABLE calls (
	seq INTEGER NOT NULL, 
	session_id VARCHAR NOT NULL, 
	step INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	call_id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	arguments JSON NOT NULL, 
	effect VARCHAR, 
	ran_in VARCHAR, 
	state VARCHAR NOT NULL, 
	result JSON, 
	error JSON, 
	output VARCHAR NOT NULL, 
	started DATETIME, 
	seconds FLOAT NOT NULL, repairs JSON, made_in VARCHAR, 
	CONSTRAINT pk_calls PRIMARY KEY (seq), 
	CONSTRAINT fk_calls_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "calls" VALUES(1,'1m861t900smn',1,0,'s1c0','checkout','{"items": [{"name": "mug", "count": 2}]}','once','host','done','{"total": 19.8}',NULL,'','2026-11-24 05:52:46.116585',0.1,NULL,'1m861t8zz000');
INSERT INTO "calls" VALUES(2,'1m861t900smn',1,1,'s1c1','price','{"item": "cup"}','pure','sandbox','done',NULL,'{"kind": "exception", "message": "unknown item ''cup''", "detail": "Traceback"}','looking
','2026-11-24 05:52:46.116617',0.05,NULL,NULL);
CREATE TABLE generations (
	session_id VARCHAR NOT NULL, 
	step INTEGER NOT NULL, 
	max_tokens INTEGER NOT NULL, 
	thought_limit INTEGER, 
	ids BLOB NOT NULL, 
	logprobs BLOB NOT NULL, 
	CONSTRAINT pk_generations PRIMARY KEY (session_id, step), 
	CONSTRAINT fk_generations_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "generations" VALUES('1m861t900smn',3,64,NULL,X'300000009AFFFFFF32000000',X'000000BF0000C07F000080BE');
CREATE TABLE images (
	seq INTEGER NOT NULL, 
	session_id VARCHAR NOT NULL, 
	step INTEGER NOT NULL, 
	call_id VARCHAR, 
	place INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	tokens INTEGER NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	CONSTRAINT pk_images PRIMARY KEY (seq), 
	CONSTRAINT fk_images_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE, 
	CONSTRAINT fk_images_sha256 FOREIGN KEY(sha256) REFERENCES blobs (sha256)
);
INSERT INTO "images" VALUES(1,'1m861t900smn',0,NULL,9,'mug.png',70,'3f48941958bd27a809bf19d90dc7f122599e1177abf07cdea2681133959b5761');
CREATE TABLE leases (
	session_id VARCHAR NOT NULL, 
	owner VARCHAR NOT NULL, 
	host VARCHAR NOT NULL, 
	pid INTEGER NOT NULL, 
	process_start VARCHAR NOT NULL, 
	expires FLOAT NOT NULL, 
	CONSTRAINT pk_leases PRIMARY KEY (session_id), 
	CONSTRAINT fk_leases_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
CREATE TABLE memory (
	session_id VARCHAR NOT NULL, 
	tokens INTEGER NOT NULL, 
	bytes BIGINT NOT NULL, 
	plain_bytes BIGINT NOT NULL, 
	CONSTRAINT pk_memory PRIMARY KEY (session_id), 
	CONSTRAINT fk_memory_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "memory" VALUES('1m861t900smn',12,4096,9000);
CREATE TABLE options (
	session_id VARCHAR NOT NULL, 
	model_options JSON NOT NULL, 
	CONSTRAINT pk_options PRIMARY KEY (session_id), 
	CONSTRAINT fk_options_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "options" VALUES('1m861t900smn','{"kv_bits": "4", "context_length": 4096}');
CREATE TABLE orders (
	session_id VARCHAR NOT NULL, 
	seq INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	kind VARCHAR NOT NULL, 
	text VARCHAR NOT NULL, 
	CONSTRAINT pk_orders PRIMARY KEY (seq), 
	CONSTRAINT fk_orders_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "orders" VALUES('1m861t900smn',1,'2026-11-24 10:55:27.032117','say','Hurry up');
CREATE TABLE progress (
	session_id VARCHAR NOT NULL, 
	updated DATETIME NOT NULL, 
	title VARCHAR NOT NULL, 
	steps INTEGER NOT NULL, 
	tokens INTEGER NOT NULL, 
	prompt_tokens INTEGER NOT NULL, 
	generated_tokens INTEGER NOT NULL, 
	thought_tokens INTEGER NOT NULL, 
	seconds FLOAT NOT NULL, 
	outcome VARCHAR, 
	reason VARCHAR NOT NULL, 
	workspace VARCHAR, 
	CONSTRAINT pk_progress PRIMARY KEY (session_id), 
	CONSTRAINT fk_progress_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE, 
	CONSTRAINT fk_progress_workspace FOREIGN KEY(workspace) REFERENCES blobs (sha256)
);
INSERT INTO "progress" VALUES('1m861t900smn','2026-11-24 05:52:46.124412','Two mugs, please',3,12,6,6,1,0.75,'done','the model ended its turn','207dda0d916be6ad267f1b690ff251ab05af694a15965cdf2231f938f1c0f9e4');
CREATE TABLE questions (
	session_id VARCHAR NOT NULL, 
	id VARCHAR NOT NULL, 
	created DATETIME NOT NULL, 
	call_id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	arguments JSON NOT NULL, 
	reason VARCHAR NOT NULL, 
	approved BOOLEAN, 
	answered DATETIME, 
	comment VARCHAR NOT NULL, 
	used BOOLEAN NOT NULL, 
	CONSTRAINT pk_questions PRIMARY KEY (id), 
	CONSTRAINT fk_questions_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "questions" VALUES('1m861t900smn','1m861t900smn-1','2026-11-24 10:55:27.029764','s3c0','checkout','{"items": []}','the policy asks about this tool',1,'2026-11-24 10:55:27.030953','fine',0);
CREATE TABLE sessions (
	id VARCHAR NOT NULL, 
	created DATETIME NOT NULL, 
	agent VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	fingerprint VARCHAR NOT NULL, 
	variant VARCHAR NOT NULL, 
	system VARCHAR NOT NULL, 
	thinking BOOLEAN NOT NULL, 
	sampling JSON NOT NULL, 
	tools_hash VARCHAR NOT NULL, 
	CONSTRAINT pk_sessions PRIMARY KEY (id)
);
INSERT INTO "sessions" VALUES('1m861t900smn','2026-11-24 05:52:46.080676','shop.agent:agent','nano','f00d','small','You help in a shop.',1,'{"temperature": 1.0, "top_p": 0.95, "top_k": 64, "seed": 7}','beef');
CREATE TABLE steps (
	session_id VARCHAR NOT NULL, 
	step INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	kind VARCHAR NOT NULL, 
	text VARCHAR NOT NULL, 
	prompt_tokens INTEGER NOT NULL, 
	generated_tokens INTEGER NOT NULL, 
	thought_tokens INTEGER NOT NULL, 
	seconds FLOAT NOT NULL, 
	outcome VARCHAR, 
	reason VARCHAR NOT NULL, thoughts VARCHAR DEFAULT '' NOT NULL, workspace VARCHAR, 
	CONSTRAINT pk_steps PRIMARY KEY (session_id, step), 
	CONSTRAINT fk_steps_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "steps" VALUES('1m861t900smn',0,'2026-11-24 05:52:46.096510','user','Two mugs, please',4,0,0,0.0,NULL,'','',NULL);
INSERT INTO "steps" VALUES('1m861t900smn',1,'2026-11-24 05:52:46.117190','model','',2,2,0,0.25,NULL,'','','207dda0d916be6ad267f1b690ff251ab05af694a15965cdf2231f938f1c0f9e4');
INSERT INTO "steps" VALUES('1m861t900smn',2,'2026-11-24 05:52:46.124412','model','There you are.',0,4,1,0.5,'done','the model ended its turn','','207dda0d916be6ad267f1b690ff251ab05af694a15965cdf2231f938f1c0f9e4');
CREATE TABLE transcript (
	session_id VARCHAR NOT NULL, 
	step INTEGER NOT NULL, 
	start INTEGER NOT NULL, 
	ids BLOB NOT NULL, 
	CONSTRAINT pk_transcript PRIMARY KEY (session_id, step), 
	CONSTRAINT fk_transcript_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "transcript" VALUES('1m861t900smn',0,0,X'02000000690000000900000009000000');
INSERT INTO "transcript" VALUES('1m861t900smn',1,4,X'30000000050000000500000032000000');
INSERT INTO "transcript" VALUES('1m861t900smn',2,8,X'0800000008000000080000006A000000');
CREATE INDEX ix_progress_updated ON progress (updated);
CREATE INDEX ix_progress_workspace ON progress (workspace);
CREATE INDEX ix_calls_session_id_step_position ON calls (session_id, step, position);
CREATE INDEX ix_questions_session_id ON questions (session_id);
CREATE INDEX ix_orders_session_id ON orders (session_id);
CREATE INDEX ix_steps_workspace ON steps (workspace);
CREATE INDEX ix_images_session_id ON images (session_id);
CREATE INDEX ix_images_sha256 ON images (sha256);
COMMIT;
