// What the program of an update calls: products with what follows them, sums, Adam.  Compiled on the machine it runs on.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

typedef std::int64_t I;
#if defined(__AVX512F__)
constexpr int W = 16, ROWS = 8;  // floats in a register; rows of a tile, whose sums stay in 2 * ROWS registers
#elif defined(__AVX__)
constexpr int W = 8, ROWS = 6;
#else
constexpr int W = 4, ROWS = 6;
#endif
typedef float V __attribute__((vector_size(4 * W), aligned(4), may_alias));

// C = relu(A B + bias) or A B where mask > 0, else 0.  A [m, k], B [k, n], C and mask [m, n], each with two strides;
// the bias has one along m and one along n, of which one is 0.
struct Product {
  I m, n, k;
  const float* a; I am, ak;
  const float* b; I bk, bn;
  float* c; I cm, cn;
  const float* bias; I biasm, biasn;
  int relu;
  const float* mask;  // strides of c
  float* scratch;     // [k, 2 W]
};

static inline float finished(const Product& p, float x, I i, I j) {
  if (p.bias) x += p.bias[i * p.biasm + j * p.biasn];
  if (p.relu && x < 0) x = 0;  // NaN stays
  if (p.mask && p.mask[i * p.cm + j * p.cn] <= 0) x = 0;
  return x;
}

// R rows and N registers of columns from (i, j) on; columns of B are contiguous, the last ones of C may be missing.
template <int R, int N>
static inline void tile(const Product& p, I i, I j, const float* b, I bk, I columns) {
  const float* a = p.a + i * p.am;
  V sum[R][N] = {};
  for (I k = 0; k < p.k; k++) {
    V row[N];
    for (int v = 0; v < N; v++) row[v] = *(const V*)(b + k * bk + v * W);
    for (int r = 0; r < R; r++) {
      const float x = a[r * p.am + k * p.ak];
      for (int v = 0; v < N; v++) sum[r][v] += x * row[v];
    }
  }
  if (columns < N * W) {
    for (int r = 0; r < R; r++)
      for (I c = 0; c < columns; c++) p.c[(i + r) * p.cm + (j + c) * p.cn] = finished(p, sum[r][c / W][c % W], i + r, j + c);
    return;
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < N; v++) {
      V x = sum[r][v];
      const I at = (i + r) * p.cm + j + v * W;
      if (p.bias) x += p.biasn ? *(const V*)(p.bias + j + v * W) : V{} + p.bias[(i + r) * p.biasm];
      if (p.relu) x = x < 0 ? V{} : x;
      if (p.mask) x = *(const V*)(p.mask + at) <= 0 ? V{} : x;
      *(V*)(p.c + at) = x;
    }
}

template <int R, int N>
static void rows(const Product& p, I i, I j, const float* b, I bk, I columns) {
  if constexpr (R > 0) {
    if (p.m - i == R) tile<R, N>(p, i, j, b, bk, columns);
    else rows<R - 1, N>(p, i, j, b, bk, columns);
  }
}

template <int N>
static void panel(const Product& p, I j, I columns) {
  const float* b = p.b + j * p.bn;
  I bk = p.bk;
  if (p.bn != 1 || columns < N * W || p.m > 8 * ROWS) {  // side by side and one below the other, zeros behind the last
    for (I k = 0; k < p.k; k++) {
      float* to = p.scratch + k * N * W;
      if (p.bn == 1 && columns == N * W) std::memcpy(to, b + k * p.bk, sizeof(float) * N * W);
      else for (I c = 0; c < N * W; c++) to[c] = c < columns ? b[k * p.bk + c * p.bn] : 0;
    }
    b = p.scratch;
    bk = N * W;
  }
  I i = 0;
  for (; i + ROWS <= p.m; i += ROWS) tile<ROWS, N>(p, i, j, b, bk, columns);
  rows<ROWS - 1, N>(p, i, j, b, bk, columns);
}

static inline float total(const float* x, I n, I step) {
  float sum = 0;
  I i = 0;
  if (step == 1) {
    V parts[4] = {};
    for (; i + 4 * W <= n; i += 4 * W)
      for (int v = 0; v < 4; v++) parts[v] += *(const V*)(x + i + v * W);
    const V all = (parts[0] + parts[1]) + (parts[2] + parts[3]);
    for (int v = 0; v < W; v++) sum += all[v];
  }
  double rest = sum;
  for (; i < n; i++) rest += x[i * step];
  return (float)rest;
}

static inline float dot(const float* x, const float* y, I n) {
  V parts[4] = {};
  I i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (int v = 0; v < 4; v++) parts[v] += *(const V*)(x + i + v * W) * *(const V*)(y + i + v * W);
  const V all = (parts[0] + parts[1]) + (parts[2] + parts[3]);
  float sum = 0;
  for (int v = 0; v < W; v++) sum += all[v];
  for (; i < n; i++) sum += x[i] * y[i];
  return sum;
}

__attribute__((noinline)) static void product(Product p) {
  if (p.ak == 1 && p.bk == 1 && (p.n < 5 || p.m < 5)) {
    for (I i = 0; i < p.m; i++)
      for (I j = 0; j < p.n; j++)
        p.c[i * p.cm + j * p.cn] = finished(p, dot(p.a + i * p.am, p.b + j * p.bn, p.k), i, j);
    return;
  }
  const bool plain = p.cn == 1 || p.n == 1, turned = p.cm == 1 || p.m == 1;
  if (turned && (!plain || p.m > p.n)) {  // C' = B' A'
    Product q = p;
    q.m = p.n, q.n = p.m, q.a = p.b, q.am = p.bn, q.ak = p.bk, q.b = p.a, q.bk = p.ak, q.bn = p.am;
    q.cm = p.cn, q.cn = p.cm, q.biasm = p.biasn, q.biasn = p.biasm;
    p = q;
  }
  I j = 0;
  for (; j + 2 * W <= p.n; j += 2 * W) panel<2>(p, j, 2 * W);
  for (; j < p.n; j += W) panel<1>(p, j, p.n - j < W ? p.n - j : W);
}

// Adam as torch.optim.Adam has it; step has been counted already.
__attribute__((noinline)) static void adam(float* __restrict p, const float* __restrict g, float* __restrict m, float* __restrict v, I n,
                 const float* step, double rate, double beta1, double beta2, double decay, double eps) {
  const double one = 1 - std::pow(beta1, (double)*step), two = std::sqrt(1 - std::pow(beta2, (double)*step));
  const float size = (float)(rate / one), root = (float)two, e = (float)eps, d = (float)decay;
  const float b2 = (float)beta2, c1 = (float)(1 - beta1), c2 = (float)(1 - beta2);
  for (I i = 0; i < n; i++) {
    const float x = g[i] + d * p[i];
    m[i] += c1 * (x - m[i]);
    v[i] = b2 * v[i] + c2 * x * x;
    p[i] -= size * m[i] / (std::sqrt(v[i]) / root + e);
  }
}

static void lerp(float* __restrict x, const float* __restrict y, I n, float share) {
  for (I i = 0; i < n; i++) x[i] += share * (y[i] - x[i]);
}
