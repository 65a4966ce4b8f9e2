// The rotation of `rotation.py`: signs, then Hadamard. Sixteen vectors go together, one in each lane; the same
// additions in the same order as there, so the same bits.

#define STEP TARGET static inline

constexpr int BATCH = 16;
constexpr int PALEY = 12;  // order of the Hadamard matrix beside Sylvester's

using Together = float[BATCH];

STEP void hadamard(Together* y, int size, const float* paley, bool transposed) {
  int power = size & (size - 1) ? size / PALEY : size;
  for (int step = 1; step < power; step *= 2)
    for (int c = 0; c < size; c += 2 * step)
      for (int i = c; i < c + step; i++)
        for (int l = 0; l < BATCH; l++) {
          float low = y[i][l], high = y[i + step][l];
          y[i][l] = low + high, y[i + step][l] = low - high;
        }
  int across = transposed ? 1 : PALEY, along = transposed ? PALEY : 1;
  for (int j = 0; power < size && j < power; j++) {
    Together rows[PALEY];
    for (int r = 0; r < PALEY; r++) memcpy(rows[r], y[r * power + j], sizeof(Together));
    for (int i = 0; i < PALEY; i++)
      for (int l = 0; l < BATCH; l++) {
        float total = rows[0][l] * paley[i * across];
        for (int r = 1; r < PALEY; r++) total = total + rows[r][l] * paley[i * across + r * along];
        y[i * power + j][l] = total;
      }
  }
}

// `count` vectors of `size` numbers that begin `stride` apart, in place: into the rotated basis, or back.
TARGET static void rotate(const Rotation& rotation, int size, bool back, float* x, int64_t stride, int64_t count) {
  alignas(64) Together y[MAX_SIZE];
  for (int64_t start = 0; start < count; start += BATCH, x += BATCH * stride) {
    int lanes = count - start < BATCH ? (int)(count - start) : BATCH;
    for (int c = 0; c < size; c++)
      for (int l = 0; l < BATCH; l++) y[c][l] = l < lanes ? x[l * stride + c] * (back ? 1 : rotation.signs[c]) : 0;
    hadamard(y, size, rotation.paley, back);
    for (int l = 0; l < lanes; l++)
      for (int c = 0; c < size; c++) x[l * stride + c] = y[c][l] * rotation.norm * (back ? rotation.signs[c] : 1);
  }
}

#undef STEP
